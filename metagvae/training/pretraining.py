"""The loop that trains a GuidedVAE."""

from __future__ import annotations

import torch
from torch import Tensor

from episodes import ImageBank, InputError, to_float, warp
from episodes.counter_rng import seed_for
from metagvae.compute.processes import ranks
from metagvae.config.sections import PretrainConfig, to_dict
from metagvae.guidance import Views
from metagvae.runs.run import open_run, without_places
from metagvae.storage.tensors import write_tensors
from metagvae.training.loop import fit, run_device
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.zoo.build import attribute_sizes, check_sections, new_encoder, new_vae
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.load import classes_seen, images_seen, save_encoder


class Shuffle:
    """Batches of image numbers: step ``s`` is a pure function of (seed, s), each epoch one permutation.

    Args:
        total: number of pictures.
        batch: pictures per step; the tail of an epoch that does not fill a batch is left out.
    """

    def __init__(self, total: int, batch: int, seed: int) -> None:
        self.total, self.batch, self.seed = total, min(batch, total), seed
        self.per_epoch = self.total // self.batch
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> Tensor:
        """int64 ``[batch]`` on the CPU."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_for(self.seed, 2, epoch))
            self._epoch, self._order = epoch, torch.randperm(self.total, generator=generator)
        return self._order[place * self.batch : (place + 1) * self.batch]


def pretrain(config: PretrainConfig, bank: ImageBank | None = None) -> GuidedVAE:
    """Trains a guided VAE on the training split and leaves a run folder with its encoder.

    Args:
        bank: the training pictures, if they are at hand; else ``config.data`` loads them.

    Raises:
        InputError: before any training, if the config cannot work.
        metagvae.runs.signals.Interrupted: if the run was stopped; its state is written.
    """
    if config.encoder.source is not None:
        raise InputError("pretrain makes a new encoder; leave out encoder.source (train takes one).")
    if config.batch < 1 or config.vae.warm_up < 0:
        raise InputError(f"batch must be >= 1 and vae.warm_up >= 0; received {config.batch}, {config.vae.warm_up}.")
    if config.views < 1:
        raise InputError(f"views must be at least 1; received {config.views}.")
    check_sections(config.encoder, config.vae)
    peers = ranks()
    device = run_device(config.run, config.optim)
    with peers.first_here():
        bank = bank or config.data.make().load("train")
    share = peers.share(min(config.batch, len(bank)), "batch")
    encoder = new_encoder(config.encoder, config.vae, bank, config.run.seed)
    sizes = attribute_sizes(bank)
    vae = new_vae(encoder, config.vae, sizes)
    vae.check_views(config.views)
    with open_run(
        config.run.folder,
        "pretrain",
        {**to_dict(config), "attributes": sizes},
        config.run.resume,
        device.precision_name,
    ) as run:
        run.check_data(bank)
        device.place(vae)
        if config.optim.compile:
            device.compile(vae.encoder)
        bank = bank.to(device.device)
        shuffle = Shuffle(len(bank), config.batch, config.run.seed)
        labels = bank.labels
        class_values = {name: a.values for name, a in bank.attributes.items()}

        def loss_terms(step: int) -> dict[str, Tensor]:
            chosen = shuffle(step)[share.rows(share.count)].to(device.device)
            if config.views > 1:
                chosen = chosen.repeat_interleave(config.views)
            warped = warp(to_float(bank.gather(chosen)), config.augment)
            views = Views(config.views, warped.parameters) if config.views > 1 else None
            classes = labels[chosen]
            attributes = {"class": classes, **{name: values[classes] for name, values in class_values.items()}}
            warm_up = min(1.0, (step + 1) / config.vae.warm_up) if config.vae.warm_up else 1.0
            return vae.losses(device.layout(warped.images), attributes, warm_up, views)

        def place(step: int) -> str:
            epoch, batch = divmod(step, shuffle.per_epoch)
            return f"epoch {epoch}, batch {batch}, seed {config.run.seed}"

        vae.train()
        fit(run, vae, loss_terms, config.optim, config.run, device, place, share, label="pretraining")
        vae.eval().to("cpu")
        if not peers.main:
            return vae
        write_tensors(run.folder / "vae.safetensors", vae.state_dict())
        guidance = ", ".join(spec["name"] for spec in config.vae.guidance) or "no guidance (plain VAE)"
        card = EncoderCard(
            name=run.folder.name,
            trained_on=f"{bank.dataset}, {bank.split} split, fingerprint {bank.fingerprint}",
            method=f"VAE with {guidance}, {config.optim.steps} steps of {shuffle.batch} pictures"
            + (f" under {config.views} warps each" if config.views > 1 else ""),
            licence=f"of the pictures: {config.data.make().licence}",
            trained_classes=classes_seen(bank),
            trained_images=images_seen(bank),
            details={"provenance": without_places(run.provenance), "seed": config.run.seed},
        )
        save_encoder(vae.encoder, run.folder / "encoder", card)
    return vae
