"""Error over images a class on somebody's own features, and what it will be with twice the images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from episodes import InputError
from metagvae.classifier.calibration import Calibration, gaussian_logits, squared_distances

DRAWS = 60  # of each number of images a class
_TRUST = 0.5  # standard deviation of the predicted fall, as a share of it
_CLUSTERED = 1.5  # images of one folder make their mistakes together: variance over that of independent ones


@dataclass(frozen=True)
class Forecast:
    """An error in [0, 1] and its 95 % interval.

    Attributes:
        shot: images a class.
    """

    shot: int
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """The error over images a class; the mean over classes, so that a large class counts as much as a small one.

    Attributes:
        points: error by number of images a class, each averaged over draws.
        now: one image of each class left out at a time and known by all others, so that no class is short of one that
            its rivals have; ``shot`` is the (harmonic) mean number of others in a class.
        doubled: predicted for twice as many images a class.
    """

    points: dict[int, float]
    now: Forecast
    doubled: Forecast


def learning_curve(
    features: Tensor, labels: Tensor, calibration: Calibration, draws: int = DRAWS, seed: int = 0
) -> LearningCurve:
    """Nearest class mean, measured and carried on.

    The error falls as a + b / K, the first order of what K images do to a class's mean; b is fitted to the points.

    Args:
        features: ``[n, D]``, at the length in which their distances are taken.
        labels: int64 ``[n]`` in [0, classes).
        calibration: of these distances, by which a class that lacks an image is not punished for it.

    Raises:
        InputError: if there is one class alone, or a class has one image.
    """
    counts = torch.bincount(labels)
    classes, least = len(counts), int(counts.min())
    if classes < 2 or least < 2:
        raise InputError(
            f"an error needs two classes or more, of two images or more; received {classes} classes, the smallest of "
            f"{least} image(s)."
        )
    generator = torch.Generator().manual_seed(seed)
    shots = _shots(least - 1)
    points = {shot: _drawn_error(features, labels, counts, shot, draws, generator) for shot in shots}
    error = float(_one_of_each_left_out(features, labels, calibration, generator).double().mean())
    shot = float((1 / (counts - 1).double()).mean()) ** -1
    now = Forecast(round(shot), error, *_interval(error, 0.0, counts))
    fall = _slope(points) * (1 / shot - 1 / (2 * float((1 / counts.double()).mean()) ** -1))
    after = max(error - fall, 0.0)
    return LearningCurve(points, now, Forecast(round(2 * (shot + 1)), after, *_interval(after, fall, counts)))


def _shots(most: int) -> list[int]:
    """1 to ``most``, at most eight numbers, in equal ratios."""
    return sorted({round(most ** (step / 7)) for step in range(8)})


def _drawn_error(
    features: Tensor, labels: Tensor, counts: Tensor, shot: int, draws: int, generator: torch.Generator
) -> float:
    wrong = []
    for _ in range(draws):
        order = torch.rand(len(labels), generator=generator).argsort()
        order = order[labels[order].argsort(stable=True)]  # shuffled within each class
        rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
        support, query = order[rank < shot], order[rank >= shot]
        means = features[support].double().view(len(counts), shot, -1).mean(1)
        found = torch.cdist(features[query].double(), means).argmin(1)
        wrong.append(_balanced(found != labels[query], labels[query], len(counts)))
    return sum(wrong) / draws


def _one_of_each_left_out(
    features: Tensor, labels: Tensor, calibration: Calibration, generator: torch.Generator
) -> Tensor:
    """Whether each class's left-out image is put into another, ``[rounds, classes]``; which image is drawn anew."""
    counts = torch.bincount(labels)
    classes = len(counts)
    rounds = min(max(4 * int(counts.max()), 100), 1000)
    order = labels.argsort(stable=True)
    ranks = torch.stack([torch.rand(rounds, int(count), generator=generator).argmin(1) for count in counts], 1)
    rows = order[ranks + counts.cumsum(0) - counts]
    held = features.double()
    sums = torch.zeros(classes, features.shape[1]).double().index_add_(0, labels, held)
    wrong = []
    for left in rows:
        means = (sums - held[left]) / (counts - 1).unsqueeze(-1)
        logits = gaussian_logits(squared_distances(held[left], means), counts - 1, calibration)
        wrong.append(logits.argmax(1) != torch.arange(classes))
    return torch.stack(wrong)


def _balanced(wrong: Tensor, labels: Tensor, classes: int) -> float:
    """The mean over classes of the share that is wrong."""
    rows = torch.nn.functional.one_hot(labels, classes).double()
    return float(((rows.T @ wrong.double()) / rows.sum(0)).mean())


def _slope(points: dict[int, float]) -> float:
    """b of a + b / K by least squares over the larger half of the numbers, no less than 0."""
    kept = sorted(points)[len(points) // 2 - (len(points) < 4) :] if len(points) > 2 else sorted(points)
    x = [1 / shot for shot in kept]
    y = [points[shot] for shot in kept]
    middle = sum(x) / len(x)
    spread = sum((one - middle) ** 2 for one in x)
    return max(sum((one - middle) * two for one, two in zip(x, y, strict=True)) / spread, 0.0) if spread else 0.0


def _interval(error: float, fall: float, counts: Tensor) -> tuple[float, float]:
    """95 %: of a share of so many images (Agresti & Coull 1998, clustered), and of the fall that was predicted."""
    total = float(counts.double().pow(-1).mean()) ** -1 * len(counts) / _CLUSTERED
    middle = (error * total + 2) / (total + 4)
    deviation = math.sqrt(middle * (1 - middle) / (total + 4) + (_TRUST * fall) ** 2)
    return max(middle - 1.96 * deviation, 0.0), min(middle + 1.96 * deviation, 1.0)
