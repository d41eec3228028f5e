"""The error on classes never seen, from few classes: each fold of classes is held out once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from episodes import Episodes, ImageBank, InputError
from episodes.datasets import make_dataset
from episodes.paths import expanded
from metagvae.compute.device import Device
from metagvae.config.sections import TrainConfig
from metagvae.encoders.controls import fitted_controls
from metagvae.encoders.joined import parts
from metagvae.evaluation.class_interval import student_quantile
from metagvae.evaluation.evaluator import Evaluator
from metagvae.storage.atomic_files import check_links
from metagvae.studies.methods import encoder_learner
from metagvae.studies.protocol import Head
from metagvae.training.episodic import train
from metagvae.zoo.leakage import refuse_trained_classes, refuse_trained_sources

LEAST = 3  # folds: of two, Student's t has one degree of freedom, and its interval is of no use
TRAINED = "trained on the other folds"


@dataclass(frozen=True)
class FoldErrors:
    """Errors in [0, 1] on each fold's held-out classes, by method, those classes, and the ones with too few images."""

    classes: list[list[str]]
    errors: dict[str, list[float]]
    left_out: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        folds = len(self.classes)
        about = f"{folds} folds, [95 % interval over them (Student)]"
        if folds < LEAST:
            about = (
                f"{folds} folds: too few for an interval (of two, Student's is 12.7 standard errors); take 3 or more"
            )
        lines = [f"few-shot error in % on held-out classes; {about}"]
        for method, errors in self.errors.items():
            each = " ".join(f"{100 * error:.1f}" for error in errors)
            half, mean = half_width(errors), float(np.mean(errors))
            ends = (max(mean - half, 0.0), min(mean + half, 1.0)) if half is not None else ()
            bounds = f" [{', '.join(f'{100 * end:.2f}' for end in ends)}]" if ends else ""
            lines.append(f"  {method:<28} {100 * mean:6.2f}{bounds}   folds {each}")
        lines += [f"  fold {number}: {', '.join(names)}" for number, names in enumerate(self.classes)]
        if self.left_out:
            lines.append(f"  left out, as they have too few images: {', '.join(self.left_out)}")
        return "\n".join(lines)


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a mean of few values; None of fewer than three.

    Folds share training classes, so it is a guide, no more.
    """
    count = len(values)
    if count < LEAST:
        return None
    return float(student_quantile(count - 1) * np.std(values, ddof=1) / math.sqrt(count))


def fold_classes(names: Sequence[str], folds: int, seed: int) -> list[list[str]]:
    """The classes dealt into folds, in an order drawn by hashing the seed with each name."""
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    return [sorted(order[fold::folds]) for fold in range(folds)]


def all_classes(config: TrainConfig) -> ImageBank:
    """One bank of every class of a folder of pictures, whatever split it is in; upright, to be turned when dealt."""
    data = config.data
    if data.name == "folder":
        options = {**data.options, "split_by": "fractions", "fractions": [0.0, 0.0, 1.0]}
        options.pop("splits_csv", None)
        return make_dataset(data.name, options, root=data.root, size=data.size).load("test")
    raise InputError(f"cross-validation is for folders of pictures (data.name: folder); received {data.name!r}.")


def cross_validate(
    config: TrainConfig,
    folds: int = 4,
    episodes: int = 600,
    methods: Sequence[str] = ("pixels",),
    training: bool = True,
) -> FoldErrors:
    """Trains with each fold of classes held out and measures on it, and measures methods that need no training.

    The fold after the one held out chooses the best state; the rest is trained on. Runs go to ``fold0``, ``fold1`` ...
    in ``config.run.folder``. Episodes are of the shape of ``config.validation``.

    Args:
        methods: encoders as `metagvae evaluate --encoder` takes them, but pca and random, measured beside.
        training: False only measures ``methods``.

    Raises:
        InputError: before any training, if a fold has too few classes or pictures, or if a method, the encoder that
            the training starts from, or a teacher of it was trained on some of them.
    """
    check_links(expanded(config.run.folder))  # a fold's folder may be one
    bank = all_classes(config)
    shape, seed = config.validation, config.run.seed
    needed = shape.shot + shape.query
    left_out = [name for name, count in zip(bank.class_names, bank.counts.tolist(), strict=True) if count < needed]
    usable = [name for name in bank.class_names if name not in left_out]
    if not methods and not training:
        raise InputError("there is nothing to measure: methods names none, and training is false.")
    if not 2 + training <= folds <= len(usable):
        raise InputError(
            f"folds must be between {2 + training} and the {len(usable)} classes that have {needed} images or more "
            f"({shape.shape} with {shape.query} queries, of {bank.num_classes} classes); received {folds}."
        )
    fitted = sorted(fitted_controls(methods))
    if fitted:
        raise InputError(f"the method {fitted[0]!r} is fitted on training pictures; cross-validate takes others.")
    dealt = fold_classes(usable, folds, seed)
    device = Device.choose(config.run.device, config.optim.precision)

    def part(names: Sequence[str], split: str) -> ImageBank:
        wanted = [number for number, name in enumerate(bank.class_names) if name in names]
        upright = bank.subset(torch.tensor(wanted), split)
        # after the deal: a class and its turns stay on one side
        return upright.with_rotations() if config.data.rotations == "classes" else upright

    evaluators, turns = [], config.data.rotations == "episode"
    for names in dealt:
        drawn = Episodes(shape.shape, seed, "test", turns, shape.within)
        evaluators.append(Evaluator(part(names, "test"), drawn, episodes, device))
        evaluators[-1].check(shape.way, shape.shot)
        if training:
            refuse_trained_sources(config, evaluators[-1].bank)
        for method in (one for name in methods for one in parts(name)):
            refuse_trained_classes(method, evaluators[-1].bank)
    errors: dict[str, list[float]] = {}
    for fold, evaluator in enumerate(evaluators):
        learners = {name: encoder_learner(name, evaluator.bank, evaluator.bank, Head()) for name in methods}
        if training:
            choosing = (fold + 1) % folds
            left = [name for i, names in enumerate(dealt) for name in names if i not in (fold, choosing)]
            run = replace(config.run, folder=str(Path(config.run.folder) / f"fold{fold}"))
            learners[TRAINED] = train(
                replace(config, run=run), part(left, "train"), part(dealt[choosing], "validation")
            )
        for name, learner in learners.items():
            wrong = evaluator.errors(learner, [(shape.way, shape.shot)])[0]
            errors.setdefault(name, []).append(float(wrong.mean()))
    return FoldErrors(dealt, errors, left_out)
