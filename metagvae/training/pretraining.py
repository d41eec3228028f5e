"""The loop that trains a GuidedVAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from episodes import ImageBank, to_float, warp
from episodes.batch_share import Share
from episodes.counter_rng import seed_for
from episodes.tokens import TEXT
from metagvae.compute.device import Device
from metagvae.compute.processes import ranks
from metagvae.config.adversary import AdversarySection
from metagvae.config.sections import PretrainConfig, VAESection, to_dict
from metagvae.guidance import Views
from metagvae.runs.run import Run, open_run, without_places
from metagvae.storage.tensors import write_tensors
from metagvae.training.checks import check_pretraining
from metagvae.training.loop import Task, captures, fit, run_device
from metagvae.training.step import StepInputs, as_tensor
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.infogan import InfoGAN
from metagvae.zoo.build import attribute_sizes, factor_ranges, listed, new_encoder, new_vae
from metagvae.zoo.card import EncoderCard, trained_on
from metagvae.zoo.load import save_encoder
from metagvae.zoo.trained import classes_seen, images_seen


class Shuffle:
    """Batches of image numbers: step ``s`` is a pure function of (seed, s), each epoch one permutation.

    Args:
        total: number of pictures.
        batch: pictures per step; the tail of an epoch that does not fill a batch is left out.
        device: where the numbers lie; the CPU if None. An epoch's cross to it at once, and no step waits for that.
    """

    def __init__(self, total: int, batch: int, seed: int, device: torch.device | None = None) -> None:
        self.total, self.batch, self.seed, self.device = total, min(batch, total), seed, device
        self.per_epoch = self.total // self.batch
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> Tensor:
        """int64 ``[batch]``."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_for(self.seed, 2, epoch))
            order = torch.randperm(self.total, generator=generator)
            self._epoch, self._order = epoch, order.to(self.device or order.device, non_blocking=True)
        return self._order[place * self.batch : (place + 1) * self.batch]


class PictureDraws:
    """The inputs of a step of pretraining, gathered where the bank lies and sent on to the device.

    Args:
        share: of a step's pictures, what this process works on.
    """

    def __init__(self, config: PretrainConfig, bank: ImageBank, device: Device, share: Share) -> None:
        self.bank, self.device, self.share = bank, device.device, share
        self.warm_up, self.steps = config.vae.warm_up, config.optim.steps
        self.shuffle = Shuffle(len(bank), config.batch, config.run.seed, bank.device)
        self.labels = bank.labels

    def __call__(self, step: int) -> StepInputs:
        """``images`` uint8 ``[B, C, H, W]`` and ``classes`` int64 ``[B]`` of a step, ``warm_up`` and ``progress``; of
        images with factors those too, ``factors`` float32 ``[B, factors]``, and ``attributes/NAME`` int64 ``[B]`` of
        each attribute of the images."""
        chosen = self.shuffle(step)[self.share.rows(self.share.count)]
        images = self.bank.gather(chosen, pin=self.bank.device != self.device)
        sent = {"images": images, "classes": self.labels[chosen]}
        if self.bank.factors is not None:
            sent["factors"] = self.bank.factors.values[chosen]
        for name, attribute in self.bank.image_attributes.items():
            sent[f"attributes/{name}"] = attribute.values[chosen]
        warm_up = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        rows = {name: rows.to(self.device, non_blocking=True) for name, rows in sent.items()}
        return {**rows, "warm_up": warm_up, "progress": step / self.steps}

    def place(self, step: int) -> str:
        """The epoch and batch of a step, for messages."""
        epoch, batch = divmod(step, self.shuffle.per_epoch)
        return f"epoch {epoch}, batch {batch}, seed {self.shuffle.seed}"


class PictureTerms:
    """The loss terms of a batch of pictures; called in the device's precision, it never waits for the host.

    Args:
        bank: for the attributes of its classes.
    """

    def __init__(self, config: PretrainConfig, model: GuidedVAE | InfoGAN, bank: ImageBank, device: Device) -> None:
        self.config, self.model, self.device = config, model, device
        # beside the networks, wherever the pictures lie
        self.attributes = {name: a.values.to(device.device) for name, a in bank.attributes.items()}
        self.factors = () if bank.factors is None else bank.factors.names
        self.of_images = tuple(bank.image_attributes)

    def __call__(self, inputs: StepInputs) -> dict[str, Tensor]:
        """Terms by name, of a step's inputs as `PictureDraws` gives them."""
        count = self.config.views
        images, classes = to_float(as_tensor(inputs["images"])), as_tensor(inputs["classes"])
        if count > 1:
            images, classes = (rows.repeat_interleave(count, 0) for rows in (images, classes))
        warped = warp(images, self.config.augment)
        views = Views(count, warped.parameters) if count > 1 else None
        attributes = {"class": classes, **{name: values[classes] for name, values in self.attributes.items()}}
        for number, name in enumerate(self.factors):
            attributes[name] = as_tensor(inputs["factors"])[:, number].repeat_interleave(count, 0)
        for name in self.of_images:
            attributes[name] = as_tensor(inputs[f"attributes/{name}"]).repeat_interleave(count, 0)
        shown = self.device.layout(warped.images)
        return self.model.losses(shown, attributes, inputs["warm_up"], views, inputs["progress"])


def pretrain(config: PretrainConfig, bank: ImageBank | None = None) -> GuidedVAE:
    """Trains a guided VAE, or InfoGAN, on the training split and leaves a run folder with its encoder.

    Args:
        bank: the training pictures, if they are at hand; else ``config.data`` loads them.

    Raises:
        InputError: before any training, if the config cannot work.
        metagvae.runs.signals.Interrupted: if the run was stopped; its state is written.
    """
    check_pretraining(config)
    device = run_device(config.run, config.optim, exact=config.adversary is not None)
    with ranks().first_here():
        bank = bank or config.data.make().load("train")
    share = ranks().share(min(config.batch, len(bank)), "batch")
    encoder = new_encoder(config.encoder, config.vae, bank, config.run.seed)
    sizes, factors = attribute_sizes(bank), factor_ranges(bank)
    vae = new_vae(encoder, config.vae, sizes, factors=factors)
    vae.check_views(config.views)
    vae.prior.check_images(len(bank))
    model = vae if config.adversary is None else InfoGAN(vae, config.adversary)
    with open_run(
        config.run.folder,
        "pretrain",
        {**to_dict(config), "attributes": sizes, **listed(factors)},
        config.run.resume,
        device.precision_name,
    ) as run:
        run.check_data(bank)
        device.place(model)
        if config.optim.compile:
            device.compile(vae.encoder, captures(config.optim, device))
        bank = device.hold(bank)
        draws = PictureDraws(config, bank, device, share)

        model.train()
        terms = PictureTerms(config, model, bank, device)
        rates = model.rates() if isinstance(model, InfoGAN) else {}
        task = Task(model, draws, terms, draws.place, share, "pretraining", rates)
        model.load_state_dict(fit(run, task, config.optim, config.run, device)["best"])
        model.eval().to("cpu")
        if isinstance(model, InfoGAN):
            model.fit_variance()
        vae.eval()
        fit_prior(vae, bank)
        if ranks().main:
            _export(config, run, vae, bank, draws.shuffle.batch)
    return vae


@torch.no_grad()
def fit_prior(vae: GuidedVAE, bank: ImageBank) -> None:
    """Shows a prior that learns after training the codes of training images, evenly spread and as they are."""
    if vae.prior.fits:
        rows = torch.linspace(0, len(bank) - 1, min(vae.prior.fits, len(bank))).long().to(bank.device)
        vae.prior.fit(torch.cat([vae.infer(to_float(bank.gather(part).cpu())).mean for part in rows.split(500)]))


def _export(config: PretrainConfig, run: Run, vae: GuidedVAE, bank: ImageBank, batch: int) -> None:
    """Writes the VAE, and its encoder with a card.

    Args:
        batch: images of a step.
    """
    write_tensors(run.folder / "vae.safetensors", vae.state_dict())
    card = card_of(config, bank, run.folder.name, run.provenance, f"{config.optim.steps} steps of {batch}")
    save_encoder(vae.encoder, run.folder / "encoder", card)


def card_of(config: PretrainConfig, bank: ImageBank, name: str, made_by: Mapping[str, Any], work: str) -> EncoderCard:
    """The card of the encoder that a run trained.

    Args:
        bank: the training pictures.
        made_by: the run's `provenance`.
        work: how many steps of how many pictures.
    """
    guidance = ", ".join(spec["name"] for spec in config.vae.guidance) or "no guidance (plain VAE)"
    kind = f"VAE with {guidance}" if config.adversary is None else _adversarial(config.adversary)
    things = "texts" if bank.polarity == TEXT else "pictures"
    return EncoderCard(
        name=name,
        trained_on=trained_on(bank, config.data.make().caution),
        method=f"{kind}{_parts_named(config.vae)}, {work} {things}"
        + (f" under {config.views} warps each" if config.views > 1 else ""),
        licence=f"of the pictures: {config.data.make().licence}",
        trained_classes=classes_seen(bank),
        trained_images=images_seen(bank),
        details={"provenance": without_places(made_by), "seed": config.run.seed},
    )


def _adversarial(section: AdversarySection) -> str:
    """The name of adversarial training, for a card."""
    if not section.contrast:
        return "InfoGAN"
    return f"InfoGAN-CR (contrast {section.contrast:g} from {100 * section.start:g} % of the steps)"


def _parts_named(vae: VAESection) -> str:
    """The prior and the inference of a VAE where they are not the usual ones, for its card."""
    usual = VAESection()
    return "".join(
        f", {part} {chosen['name']}"
        for part, chosen, common in (
            ("prior", vae.prior, usual.prior),
            ("inference", vae.inference, usual.inference),
        )
        if chosen != common
    )
