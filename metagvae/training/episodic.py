"""The loop that trains a learner on episodes. It loads the training and validation splits, never the test one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from episodes import EpisodeBatch, EpisodeLoader, Episodes, Factors, ImageBank, InputError, to_float, warp
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.compute.processes import ranks
from metagvae.config.sections import EpisodeSection, TrainConfig, to_dict
from metagvae.encoders.encoder import Encoder
from metagvae.evaluation.evaluator import Evaluator
from metagvae.guidance import Views
from metagvae.learners import FeatureLearner, Learner, learner_class, make_learner
from metagvae.runs.run import Run, open_run, without_places
from metagvae.storage.atomic_files import write_json
from metagvae.storage.tensors import write_tensors
from metagvae.training.loop import fit, run_device
from metagvae.training.pseudo_classes import picture_groups
from metagvae.training.step import StepInputs, as_tensor
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.zoo.build import (
    attribute_sizes,
    check_guided_attributes,
    check_pictures,
    check_sections,
    check_source_settings,
    factor_ranges,
    listed,
    new_encoder,
    new_vae,
)
from metagvae.zoo.card import EncoderCard, trained_on
from metagvae.zoo.load import save_encoder
from metagvae.zoo.trained import Trained, classes_seen, images_seen


@dataclass
class Parts:
    """The networks, pictures and settings that a training step works with."""

    learner: Learner
    vae: GuidedVAE | None


def build_parts(config: TrainConfig, bank: ImageBank, source: Trained | None = None) -> Parts:
    """The learner, and the VAE whose losses stay on in mode guided.

    Args:
        source: what ``encoder.source`` names, opened.
    """
    section, vae = config.encoder, None
    sizes = attribute_sizes(bank) if config.episodes.labelled else {}
    if config.mode == "guided" and source is not None:
        # of a pretraining run: the decoder and the guidance come along
        vae = source.vae()
        encoder = vae.encoder
        check_guided_attributes(vae, source, source.attributes, sizes)
    elif source is not None:
        encoder = source.encoder()
    else:
        encoder = new_encoder(section, config.vae, bank, config.run.seed)
        if config.mode == "guided":
            vae = new_vae(encoder, config.vae, sizes, factors=factor_ranges(bank) if sizes else {})
    if vae is not None and config.episodes.labelled:
        vae.check_views(config.views)
    check_source_settings(section, encoder)
    check_pictures(encoder, bank, source or "of this config")
    if section.features:
        encoder.features = section.features
    torch.manual_seed(config.run.seed)
    learner = make_learner(config.learner.name, encoder, config.episodes.way, **config.learner.options)
    if config.mode == "frozen":
        encoder.requires_grad_(False)
        encoder.eval()
        if not any(p.requires_grad for p in learner.parameters()):
            raise InputError(
                f"mode 'frozen' leaves the learner '{learner.name}' nothing to train. Measure the encoder as it is "
                "(metagvae evaluate --encoder), or choose another mode, or a learner with weights of its own."
            )
    return Parts(learner, vae)


class _Trainee(nn.Module):
    """Learner and VAE as one module, the encoder they share stored once."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.learner = parts.learner
        if parts.vae is not None:
            self.decoder, self.guidances = parts.vae.decoder, parts.vae.guidances
            self.prior, self.inference = parts.vae.prior, parts.vae.inference


def train(
    config: TrainConfig,
    bank: ImageBank | None = None,
    validation: ImageBank | None = None,
    watch: Callable[[int, float], None] | None = None,
) -> Learner:
    """Trains a learner on episodes of the training classes and leaves a run folder with the best one.

    Args:
        bank, validation: the two splits, if they are at hand; else ``config.data`` loads them.
        watch: told the step and the error after each validation; what it raises ends the training, resumably.

    Raises:
        InputError: before any training, if the config cannot work.
        metagvae.runs.signals.Interrupted: if the run was stopped; its state is written.
    """
    kind = learner_class(config.learner.name, config.learner.options)
    device = run_device(config.run, config.optim, kind.needs_float32)
    dataset = config.data.make()
    turns = dataset.rotations == "episode"
    shape, chosen, evaluator, peers = config.episodes, config.validation, None, ranks()
    if shape.tasks < 1:
        raise InputError(f"episodes.tasks must be at least 1; received {shape.tasks}.")
    source = None if config.encoder.source is None else zoo.open(config.encoder.source)
    if source is None:
        check_sections(config.encoder, config.vae)
    else:
        _ = source.card  # says so at once if it is damaged
    if config.optim.compile and not issubclass(kind, FeatureLearner):
        raise InputError(
            f"optim.compile is for learners that embed pictures with one set of weights; '{config.learner.name}' "
            "adapts them per task. Leave it off."
        )
    if chosen.every and not kind.any_way and chosen.way != shape.way:
        raise InputError(
            f"the learner '{config.learner.name}' has a head of {shape.way} ways; set validation.way to that "
            f"(received {chosen.way})."
        )
    share = peers.share(shape.tasks, "episodes.tasks")
    if bank is None and shape.classes == "labels":
        dataset.check_episodes("train", shape.shape)
    if validation is None and chosen.every:
        dataset.check_episodes("validation", chosen.shape)
    with peers.first_here():
        bank = bank or dataset.load("train")
        validation = validation or (dataset.load("validation") if chosen.every else None)
    shape.sampler(shape.bank(bank), config.run.seed, "train", turns)
    if validation is not None and chosen.every:
        drawn = Episodes(chosen.shape, config.run.seed, "validation", turns, chosen.within)
        evaluator = Evaluator(validation, drawn, chosen.episodes, device)
        evaluator.check(chosen.way, chosen.shot)
    parts = build_parts(config, bank, source)
    with open_run(
        config.run.folder, "train", _resolved(config, parts, bank, source), config.run.resume, device.precision_name
    ) as run:
        run.check_data(bank)
        trainee = _Trainee(parts)
        device.place(trainee)
        if config.optim.compile:
            device.compile(parts.learner.encoder)
        bank = device.hold(bank)
        episode_bank = shape.bank(bank)
        groups = _groups(shape, parts.learner, bank, device)
        sampler = shape.sampler(episode_bank, config.run.seed, "train", turns, groups)

        def numbers(step: int) -> Tensor:
            return step * shape.tasks + share.first + torch.arange(share.count)

        loader = EpisodeLoader(episode_bank, sampler, share.count, device.device, numbers)

        def place(step: int) -> str:
            first = step * shape.tasks
            return f"episodes {first} to {first + shape.tasks - 1} of the stream train, seed {config.run.seed}"

        def draw(step: int) -> StepInputs:
            batch = loader[step]
            progress = step / config.optim.steps
            return {"images": batch.images, "classes": batch.classes, "indices": batch.indices, "progress": progress}

        def validate() -> float:
            assert evaluator is not None
            (errors,) = evaluator.errors(parts.learner, [(chosen.way, chosen.shot)])
            _training_mode(trainee, config)
            return float(errors.mean())

        _training_mode(trainee, config)
        check = validate if evaluator else None
        with loader:
            outcome = fit(
                run,
                trainee,
                draw,
                EpisodeTerms(config, parts, bank, device),
                config.optim,
                config.run,
                device,
                place,
                share,
                check,
                chosen.every,
                watch=watch,
            )
        trainee.load_state_dict(outcome["best"])
        learner = parts.learner.eval().to("cpu")
        if not peers.main:
            return learner
        if parts.vae is not None:
            write_tensors(run.folder / "vae.safetensors", parts.vae.to("cpu").state_dict())
        _export(config, run, learner, bank, source, outcome["best_step"], outcome["best_error"])
        return learner


class EpisodeTerms:
    """The loss terms of a batch of episodes; called in the device's precision, it never waits for the host.

    Args:
        bank: the labelled one, for the attributes of its classes.
    """

    def __init__(self, config: TrainConfig, parts: Parts, bank: ImageBank, device: Device) -> None:
        self.config, self.parts, self.device = config, parts, device
        # beside the networks, wherever the pictures lie
        self.attributes = {name: a.values.to(device.device) for name, a in bank.attributes.items()}
        known = bank.factors
        self.factors = None if known is None else replace(known, values=known.values.to(device.device))

    def __call__(self, inputs: StepInputs) -> dict[str, Tensor]:
        """Terms by name, of a step's ``images`` (uint8 ``[T, N, K + Q, C, H, W]``), ``classes``, ``indices`` and
        ``progress``."""
        config, vae, shot = self.config, self.parts.vae, self.config.episodes.shot
        images, classes, indices = (as_tensor(inputs[name]) for name in ("images", "classes", "indices"))
        raw = to_float(images)
        warped = warp(raw, config.augment)
        batch = EpisodeBatch(_laid_out(warped.images, self.device), shot, classes, indices)
        loss, _ = self.parts.learner(batch)
        terms = {"episodes": loss}
        if vae is not None and config.vae_weight:
            seen = _vae_batch(config, self.attributes, self.factors, batch, raw, warped.parameters)
            shown = self.device.layout(seen.images)
            named = vae.losses(shown, seen.attributes, views=seen.views, progress=inputs["progress"])
            for name, term in named.items():
                terms[f"vae/{name}"] = config.vae_weight * term
        return terms


def _resolved(config: TrainConfig, parts: Parts, bank: ImageBank, source: Trained | None) -> dict[str, Any]:
    """The config as the run folder keeps it: with the VAE that mode guided goes on with, as `Trained.vae` reads it."""
    content = to_dict(config)
    if parts.vae is None:
        return content
    if source is not None:
        kept: dict[str, Any] = {name: source.config[name] for name in ("vae", "factors") if name in source.config}
        return {**content, **kept, "attributes": source.attributes}
    if not config.episodes.labelled:
        return {**content, "attributes": {}}
    return {**content, "attributes": attribute_sizes(bank), **listed(factor_ranges(bank))}


def _groups(shape: EpisodeSection, learner: Learner, bank: ImageBank, device: Device) -> Tensor | None:
    """For episodes of neighbours, each picture's group, as the encoder sees them before this training."""
    if shape.classes != "neighbours":
        return None
    return picture_groups(learner.encoder, bank, shape.neighbours, device)


def _laid_out(images: Tensor, device: Device) -> Tensor:
    """``[T, N, K + Q, C, H, W]`` whose flattening to pictures is in the device's layout."""
    laid_out: Tensor = device.layout(images.flatten(0, 2)).unflatten(0, images.shape[:3])
    return laid_out


def _training_mode(trainee: _Trainee, config: TrainConfig) -> None:
    trainee.train()
    if config.mode == "frozen":
        trainee.learner.encoder.eval()  # batch statistics of a frozen encoder stay as they are


@dataclass
class _VAEBatch:
    """The part of a step that the VAE's losses see, as `GuidedVAE.losses` takes it."""

    images: Tensor
    attributes: dict[str, Tensor]
    views: Views | None


def _vae_batch(
    config: TrainConfig,
    known: dict[str, Tensor],
    factors: Factors | None,
    batch: EpisodeBatch,
    raw: Tensor,
    moved: Tensor,
) -> _VAEBatch:
    """The pictures of the first classes of each episode, or warps of their support pictures drawn for this alone.

    Args:
        known: each class's value of the attributes, int64 ``[classes]`` by name.
        factors: of the pictures that ``batch.indices`` counts.
        raw: the episodes' pictures before they were changed, ``[T, N, K + Q, C, H, W]``.
        moved: how they were changed, ``[T, N, K + Q, 7]``.
    """
    ways = max(2, round(config.vae_share * batch.way))
    if not config.episodes.labelled:
        apart = Views(batch.images.shape[2], moved[:, :ways].flatten(0, 2))
        return _VAEBatch(batch.images[:, :ways].flatten(0, 2), {}, apart)
    views: Views | None = None
    if config.views > 1:
        support = raw[:, :ways, : batch.shot].flatten(0, 2).repeat_interleave(config.views, 0)
        warped = warp(support, config.augment)
        per_class, images, views = batch.shot * config.views, warped.images, Views(config.views, warped.parameters)
    else:
        per_class, images = batch.images.shape[2], batch.images[:, :ways].flatten(0, 2)
    classes = batch.classes[:, :ways].flatten().repeat_interleave(per_class)
    attributes = {name: values[classes] for name, values in known.items()}
    if factors is not None:
        shown = batch.indices[:, :ways, : batch.shot if views else None].flatten()
        attributes.update(factors.columns(shown.repeat_interleave(views.count if views else 1)))
    return _VAEBatch(images, {"class": classes, **attributes}, views)


def _export(
    config: TrainConfig, run: Run, learner: Learner, bank: ImageBank, source: Trained | None, step: int, error: float
) -> None:
    write_tensors(run.folder / "learner.safetensors", learner.state_dict())
    origin = f" from {Path(source.name).name}" if source else ""
    shape, kept = config.episodes, "best of validation" if config.validation.every else "kept"
    card = EncoderCard(
        name=run.folder.name,
        trained_on=trained_on(bank, config.data.make().caution),
        method=f"{learner.name}, {shape.way}-way {shape.shot}-shot episodes, mode {config.mode}{origin}, "
        f"{kept} at step {step} of {config.optim.steps}",
        licence=f"of the pictures: {config.data.make().licence}",
        trained_classes=classes_seen(bank, source),
        trained_images=images_seen(bank, source),
        details={"provenance": without_places(run.provenance), "seed": config.run.seed},
    )
    assert isinstance(learner.encoder, Encoder)
    save_encoder(learner.encoder, run.folder / "encoder", card)
    write_json(run.folder / "best.json", {"step": step, "validation_error": error if math.isfinite(error) else None})
