"""The training of a learner on episodes. It loads the training and validation splits, never the test one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from episodes import EpisodeLoader, ImageBank
from episodes.batch_share import Share
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.compute.processes import ranks
from metagvae.config.sections import TrainConfig, to_dict
from metagvae.encoders.encoder import Encoder
from metagvae.encoders.joined import SIGN
from metagvae.learners import Learner, learner_class
from metagvae.runs.run import Run, open_run, without_places
from metagvae.storage.atomic_files import write_json
from metagvae.storage.tensors import write_tensors
from metagvae.training.checks import check_training
from metagvae.training.distillation import Teacher
from metagvae.training.episode_terms import EpisodeTerms
from metagvae.training.loop import Selection, Task, captures, fit, run_device
from metagvae.training.pretraining import fit_prior
from metagvae.training.pseudo_classes import picture_groups
from metagvae.training.step import StepInputs
from metagvae.training.trainee import Parts, Trainee, build_parts
from metagvae.training.validation import Validation
from metagvae.zoo.build import attribute_sizes, factor_ranges, listed
from metagvae.zoo.card import EncoderCard, trained_on
from metagvae.zoo.leakage import refuse_trained_sources
from metagvae.zoo.load import save_encoder
from metagvae.zoo.trained import Trained, classes_seen, images_seen


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
    ready = prepare(config, bank, validation)
    device, parts, section = ready.device, ready.parts, config.run
    with open_run(section.folder, "train", _resolved(config, ready), section.resume, device.precision_name) as run:
        run.check_data(ready.bank)
        trainee = Trainee(parts, frozen=config.mode == "frozen")
        device.place(trainee)
        if config.optim.compile:
            device.compile(parts.learner.encoder, captures(config.optim, device))
        held = device.hold(ready.bank)
        draws, terms = EpisodeDraws(config, ready, held), EpisodeTerms(config, parts, held, device)
        selection = None
        if ready.validation is not None:
            selection = Selection(partial(ready.validation.error, parts.learner), ready.validation.every, watch)
        trainee.train()
        with draws.loader:
            task = Task(trainee, draws, terms, draws.place, ready.share)
            outcome = fit(run, task, config.optim, section, device, selection)
        trainee.load_state_dict(outcome["best"])
        parts.learner.eval().to("cpu")
        if ranks().main:
            _export(config, run, ready, outcome)
        return parts.learner


@dataclass(frozen=True)
class Prepared:
    """All that a training works with, checked; nothing is written yet.

    Args:
        share: of a step's episodes, what this process works on.
        source: what ``encoder.source`` names, opened.
        bank: the training split.
        rotations: whether each class of an episode gets a quarter turn.
    """

    device: Device
    share: Share
    source: Trained | None
    bank: ImageBank
    rotations: bool
    validation: Validation | None
    parts: Parts


def prepare(config: TrainConfig, bank: ImageBank | None = None, validation: ImageBank | None = None) -> Prepared:
    """Checks a config, and makes the images, the validation and the networks of its training.

    Raises:
        InputError: for what cannot work, the cheap checks first.
    """
    kind = learner_class(config.learner.name, config.learner.options)
    device = run_device(config.run, config.optim, kind.needs_float32)
    dataset, shape, chosen = config.data.make(), config.episodes, config.validation
    check_training(config, kind)
    source = None if config.encoder.source is None else zoo.open(config.encoder.source)
    if source is not None:
        _ = source.card  # says so at once if it is damaged
    teacher = None if config.teacher is None else Teacher(config.teacher)
    share = ranks().share(shape.tasks, "episodes.tasks")
    if bank is None and shape.labelled:
        dataset.check_episodes("train", shape.shape)
    if validation is None and chosen.every:
        dataset.check_episodes("validation", chosen.shape)
    with ranks().first_here():
        bank = bank or dataset.load("train")
        validation = validation or (dataset.load("validation") if chosen.every else None)
    rotations, seed, measured = dataset.rotations == "episode", config.run.seed, None
    shape.sampler(shape.bank(bank), seed, "train", rotations)  # says so if the images cannot give such episodes
    if validation is not None and chosen.every:
        refuse_trained_sources(
            config, validation, "Set validation.every 0, which keeps the last weights, or start from another encoder."
        )
        measured = Validation(chosen, seed, rotations, validation, device)
    return Prepared(device, share, source, bank, rotations, measured, build_parts(config, bank, source, teacher))


class EpisodeDraws:
    """The inputs of a step of episodes.

    Args:
        bank: the training split, where the device reads it.

    Attributes:
        loader: to be closed when no more steps are asked for.
    """

    def __init__(self, config: TrainConfig, ready: Prepared, bank: ImageBank) -> None:
        shape, self.steps, self.share = config.episodes, config.optim.steps, ready.share
        self.tasks, self.seed = shape.tasks, config.run.seed
        groups = None
        if shape.classes == "neighbours":  # as the encoder sees the images before this training
            groups = picture_groups(ready.parts.learner.encoder, bank, shape.neighbours, ready.device)
        bank = shape.bank(bank)
        sampler = shape.sampler(bank, self.seed, "train", ready.rotations, groups)
        self.loader = EpisodeLoader(bank, sampler, self.share.count, ready.device.device, self._numbers)

    def __call__(self, step: int) -> StepInputs:
        """``images`` uint8 ``[T, N, K + Q, C, H, W]``, ``classes``, ``indices`` and ``progress`` of a step."""
        batch = self.loader[step]
        progress = step / self.steps
        return {"images": batch.images, "classes": batch.classes, "indices": batch.indices, "progress": progress}

    def place(self, step: int) -> str:
        """Which episodes a step is made of, for messages."""
        first = step * self.tasks
        return f"episodes {first} to {first + self.tasks - 1} of the stream train, seed {self.seed}"

    def _numbers(self, step: int) -> Tensor:
        return step * self.tasks + self.share.first + torch.arange(self.share.count)


def _resolved(config: TrainConfig, ready: Prepared) -> dict[str, Any]:
    """The config as the run folder keeps it: with the teacher's fingerprints, and the VAE that mode guided goes on
    with, as `Trained.vae` reads it."""
    content = to_dict(config)
    if ready.parts.teacher is not None:  # the files, not only their names: it is asked at every step
        content["taught_by"] = ready.parts.teacher.fingerprints
    if ready.parts.vae is None:
        return content
    if ready.source is not None:
        known = ready.source.config
        kept: dict[str, Any] = {name: known[name] for name in ("vae", "factors") if name in known}
        return {**content, **kept, "attributes": ready.source.attributes}
    if not config.episodes.labelled:
        return {**content, "attributes": {}}
    return {**content, "attributes": attribute_sizes(ready.bank), **listed(factor_ranges(ready.bank))}


def _export(config: TrainConfig, run: Run, ready: Prepared, outcome: dict[str, Any]) -> None:
    """Writes the best learner, its encoder with a card, and of mode guided the VAE."""
    learner, source, step, error = ready.parts.learner, ready.source, outcome["best_step"], outcome["best_error"]
    if ready.parts.vae is not None:
        vae = ready.parts.vae.to("cpu").eval()
        fit_prior(vae, ready.bank)  # its codes are others than before this training
        write_tensors(run.folder / "vae.safetensors", vae.state_dict())
    write_tensors(run.folder / "learner.safetensors", learner.state_dict())
    origin, teacher = f" from {Path(source.name).name}" if source else "", ready.parts.teacher
    origins = [*([source] if source else []), *(teacher.sources if teacher else [])]
    details: dict[str, Any] = {"provenance": without_places(run.provenance), "seed": config.run.seed}
    taught = ""
    if teacher is not None:
        told, section = [(Path(name).name, mark) for name, mark in teacher.fingerprints.items()], teacher.section
        details["teacher"] = [{"run": name, "learner": mark} for name, mark in told]
        names = SIGN.join(name for name, _ in told)
        taught = f" taught by {names} (share {section.share:g}, T {section.temperature:g})"
    shape, kept = config.episodes, "best of validation" if config.validation.every else "kept"
    dataset = config.data.make()
    card = EncoderCard(
        name=run.folder.name,
        trained_on=trained_on(ready.bank, dataset.caution),
        method=f"{learner.name}, {shape.way}-way {shape.shot}-shot episodes, mode {config.mode}{origin}{taught}, "
        f"{kept} at step {step} of {config.optim.steps}",
        licence=f"of the pictures: {dataset.licence}",
        trained_classes=classes_seen(ready.bank, origins),
        trained_images=images_seen(ready.bank, origins),
        details=details,
    )
    assert isinstance(learner.encoder, Encoder)
    save_encoder(learner.encoder, run.folder / "encoder", card)
    write_json(run.folder / "best.json", {"step": step, "validation_error": error if math.isfinite(error) else None})
