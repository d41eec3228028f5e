"""Sets of labels that hold the right one as often as asked, from one picture a class on.

The score of a label is the probability of all likelier labels, and of its own probability the part that the picture's
*depth* says: the share of genuine pictures that lie nearer to their class (adaptive prediction sets, Romano, Sesia &
Candes, NeurIPS 2020, with the depth for their random number). Where probabilities and depth are right the score is
uniform on [0, 1], whatever the classes, and the labels whose score is at most 0.9 cover 90 %.

What is wrong with it is measured twice. On *auxiliary tasks*, drawn from classes set apart, which give the scores'
quantiles (Fisch, Schuster, Jaakkola & Barzilay, Few-shot Conformal Prediction with Auxiliary Tasks, ICML 2021; the
encoder's card keeps them); and *within the support*, where a class has two pictures or more: each is asked about with
itself left out. "None of these" is a label of its own, whose score is how near the picture is, in deviations of the
distances at which the classes lie from each other.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import gamma
from scipy.stats import t as student
from torch import Tensor

from episodes import ImageBank, InputError
from metagvae.classifier.calibration import Calibration, gaussian_logits, left_out, shortened, squared_distances
from metagvae.compute.device import Device
from metagvae.encoders.encoder import Encoder
from metagvae.evaluation.embedding import embed_bank

LEVELS = (*(round(0.05 * step, 2) for step in range(1, 20)), 0.975, 0.99, 0.995)  # of the quantiles that a card keeps
SHOTS = (1, 2, 3, 5)
WORTH = 10.0  # auxiliary tasks weigh as much as so many pictures of the support
_DEEP = 0.3  # the quantile of unlabelled pictures' distances that tells their spread: strangers are mostly above it
_LEAST_DEVIATION = 0.1  # of log distances between classes


@dataclass(frozen=True)
class SetPrior:
    """Quantiles of the scores on auxiliary tasks, at `LEVELS`, by the number of pictures per class.

    Args:
        genuine: of the label of pictures of the classes.
        strangers: of "none of these", of pictures of other classes.
        together: as ``genuine``, where the pictures asked about tell how far pictures lie from their classes.
        fitted_on: which pictures.
    """

    genuine: dict[str, list[float]] = field(default_factory=dict)
    strangers: dict[str, list[float]] = field(default_factory=dict)
    together: dict[str, list[float]] = field(default_factory=dict)
    fitted_on: str = "nothing"

    @classmethod
    def read(cls, details: dict[str, Any], features: list[str]) -> SetPrior | None:
        """Those in an encoder's card for these features, or None.

        Raises:
            InputError: if they are not quantiles.
        """
        stored = (details.get("sets") or {}).get("+".join(features))
        if stored is None:
            return None
        try:
            made = cls(**stored)
            for part in (made.genuine, made.strangers, made.together):
                for shot, values in part.items():
                    rising = all(a <= b for a, b in pairwise(values))
                    if int(shot) < 1 or len(values) != len(LEVELS) or not rising or not np.isfinite(values).all():
                        raise ValueError
            return made
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"the encoder's card holds sets that are no quantiles: {repr(stored)[:200]}.") from error

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def _nearest(self, part: dict[str, list[float]], shot: float) -> list[float] | None:
        return part[min(part, key=lambda known: abs(math.log(int(known) / shot)))] if part else None

    def scores(self, shot: float, together: bool = False) -> np.ndarray:
        """Scores of genuine pictures, evenly likely; uniform where nothing is known."""
        found = self._nearest((together and self.together) or self.genuine, shot)
        return np.interp(_EVEN, (0, *LEVELS, 1), (0, *found, 1)) if found else _EVEN

    def moved(self, scores: np.ndarray, fewer: float, shot: float) -> np.ndarray:
        """Scores of tasks of ``fewer`` pictures a class at the same quantiles of tasks of ``shot``."""
        one, other = (self._nearest(self.genuine, number) for number in (fewer, shot))
        if one is None or other is None or one == other:
            return scores
        found: np.ndarray = np.interp(scores, (0, *one, 1), (0, *other, 1))
        return found

    def nearness(self, coverage: float, shot: float, classes: int) -> float:
        """The score of "none of these" that a share ``coverage`` of strangers keep to."""
        found = self._nearest(self.strangers, shot)
        if found is None:
            return float(student.ppf(coverage, max(classes - 1, 1)))
        return float(np.interp(coverage, LEVELS, found))


_EVEN = np.linspace(0.005, 0.995, 100)


@lru_cache
def _shape(tail: float) -> float:
    """The shape of the gamma distribution of mean 1 whose 95 % quantile is ``tail``."""
    low, high = 0.3, 1e4
    quantiles = [gamma.ppf(0.95, k) / k - tail for k in (low, high)]
    if quantiles[0] * quantiles[1] > 0:
        return low if abs(quantiles[0]) < abs(quantiles[1]) else high
    return float(brentq(lambda k: gamma.ppf(0.95, k) / k - tail, low, high))


def rank_scores(probabilities: Tensor, depth: Tensor) -> Tensor:
    """``[n, N]``: the probability of likelier labels, and ``depth`` of a label's own.

    Args:
        probabilities: ``[n, N]``, rows that add up to 1.
        depth: ``[n]`` in [0, 1].
    """
    order = probabilities.argsort(1, descending=True)
    ranked = probabilities.gather(1, order)
    before = torch.zeros_like(probabilities).scatter_(1, order, ranked.cumsum(1) - ranked)
    return before + depth.unsqueeze(1) * probabilities


def limit(prior: np.ndarray, support: np.ndarray, coverage: float) -> float:
    """The score that a share ``coverage`` of genuine pictures keep to.

    Of n scores of the support, the next one is as likely to lie in each of the n + 1 gaps between them; where in a gap,
    the scores of the auxiliary tasks tell. That is split conformal prediction smoothed within its gaps (Vovk, Gammerman
    & Shafer, Algorithmic Learning in a Random World, 2005, section 2.3): its coverage is the share asked for, not that
    or more.

    Args:
        prior: scores on auxiliary tasks, together worth `WORTH` pictures.
        support: ``[n]`` scores of the support's pictures, each left out of its class.
    """
    n, tasks = len(support), np.sort(prior)
    ends = np.concatenate([[0.0], np.sort(support), [1.0]])
    at = np.unique(np.concatenate([tasks, ends]))
    middles = np.concatenate([[0.0], (np.arange(len(tasks)) + 0.5) / len(tasks), [1.0]])
    below, below_ends = (np.interp(x, np.concatenate([[0.0], tasks, [1.0]]), middles) for x in (at, ends))
    gap = np.clip(np.searchsorted(ends, at, side="right") - 1, 0, n)
    width = np.diff(below_ends)[gap]
    inside = (gap + np.clip((below - below_ends[gap]) / np.where(width > 0, width, 1.0), 0, 1)) / (n + 1)
    return float(np.interp(coverage, (WORTH * below + n * inside) / (WORTH + n), at))


class Sets:
    """Sets of labels for further pictures of a support set's classes.

    Args:
        support: ``[n, D]`` features.
        labels: int64 ``[n]`` in [0, classes).
        classes: N; a class without a picture is in no set.
        calibration: the encoder's.
        prior: what auxiliary tasks gave; None for nothing.
        unlabelled: ``[m, D]`` features of further pictures, most of them of these classes, that tell how far such
            pictures lie from their classes; None for none.
    """

    def __init__(
        self,
        support: Tensor,
        labels: Tensor,
        classes: int,
        calibration: Calibration,
        prior: SetPrior | None = None,
        unlabelled: Tensor | None = None,
    ) -> None:
        self.prior = prior or SetPrior()
        self.counts = torch.bincount(labels, minlength=classes)
        rows = torch.zeros(classes, support.shape[1], dtype=torch.float64)
        self.prototypes = rows.index_add_(0, labels, support.double()) / self.counts.clamp(min=1).unsqueeze(1)
        self._tail = calibration.tail
        distances, held, own = left_out(support, labels, classes)
        at = torch.arange(len(own))
        free = len(own) - int((self.counts > 1).sum())  # a class's mean takes one of its pictures
        mean = float((distances / (1 + 1 / held.clamp(min=1)))[at, own].mean()) if free else 0.0
        spread = (WORTH * calibration.spread + free * mean) / (WORTH + free)
        self.together = unlabelled is not None and len(unlabelled) > 0
        if unlabelled is not None and self.together:
            shape = _shape(self._tail)
            near = self._widened(unlabelled)[0].amin(1).quantile(_DEEP)
            seen = float(near) * shape / gamma.ppf(_DEEP, shape)
            spread = ((WORTH + free) * spread + len(unlabelled) * seen) / (WORTH + free + len(unlabelled))
        spread = max(spread, 1e-12)
        temperature = calibration.temperature * spread / calibration.spread
        self.calibration = replace(calibration, spread=spread, temperature=temperature)
        self.shot = len(labels) / max(int((self.counts > 0).sum()), 1)
        self.support_scores = self._support_scores(support, labels)
        self._apart(support, labels)

    def _support_scores(self, support: Tensor, labels: Tensor) -> np.ndarray:
        """Scores of the support's pictures, each asked in a task of a picture less of every class.

        Of each other class a picture is left out too: a class that stands alone with fewer would be at a disadvantage
        that no later picture meets. What that picture less does to scores, the auxiliary tasks tell.
        """
        rows = (self.counts[labels] > 1).nonzero().flatten()
        if not len(rows):
            return np.empty(0)
        order = torch.argsort(labels, stable=True)
        starts = self.counts.cumsum(0) - self.counts
        ranks = torch.empty_like(labels)
        ranks[order] = torch.arange(len(labels)) - starts[labels[order]]
        left = torch.where(self.counts > 1, self.counts - 1, self.counts)
        distances = torch.full((len(rows), len(self.counts)), torch.inf, dtype=torch.float64)
        for label in self.counts.nonzero().flatten().tolist():
            count, means = int(self.counts[label]), self.prototypes[label]
            if count > 1:
                out = order[starts[label] + ranks[rows] % count]
                means = (count * means - support[out].double()) / (count - 1)
            distances[:, label] = (support[rows].double() - means).square().sum(1)
        scores = self._scored(distances, left.clamp(min=1))[torch.arange(len(rows)), labels[rows]].numpy()
        return self.prior.moved(scores, max(self.shot - 1, 1), self.shot)

    def _apart(self, support: Tensor, labels: Tensor) -> None:
        """The mean and deviation of the log distances at which pictures of a class lie from the nearest other class."""
        present = self.counts.nonzero().flatten()
        if len(present) < 2:
            self.centre, self.deviation = math.log(self.calibration.spread * self._tail), 0.5
            return
        distances = self._widened(support)[0]
        distances[torch.arange(len(labels)), labels] = torch.inf
        logs = distances.amin(1).clamp(min=1e-12).log()
        means = torch.stack([logs[labels == label].mean() for label in present])
        within = float((logs - means[torch.searchsorted(present, labels)]).square().sum())
        free = len(logs) - len(means)
        variance = float(means.var()) + (within / free if free else 0.0)
        least = _LEAST_DEVIATION if len(present) > 2 else 3 * _LEAST_DEVIATION  # two classes have one distance
        self.centre, self.deviation = float(means.mean()), max(math.sqrt(variance), least)

    def _widened(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances ``[n, N]`` over 1 + 1/K, and as they are; infinite for a class without pictures."""
        distances = squared_distances(features, self.prototypes).masked_fill(self.counts == 0, torch.inf)
        return distances / (1 + 1 / self.counts.clamp(min=1)), distances

    def _scored(self, distances: Tensor, counts: Tensor) -> Tensor:
        nearest = (distances / (1 + 1 / counts)).amin(1) if len(distances) else distances.sum(1)
        shape = _shape(self._tail)
        depth = torch.from_numpy(gamma.cdf((nearest / self.calibration.spread * shape).numpy(), shape))
        return rank_scores(gaussian_logits(distances, counts, self.calibration).softmax(1), depth)

    def scores(self, features: Tensor) -> Tensor:
        """``[n, N]`` in [0, 1], of features ``[n, D]``; small for likely labels."""
        return self._scored(self._widened(features)[1], self.counts.clamp(min=1))

    def nearness(self, features: Tensor) -> Tensor:
        """``[n]``: the score of "none of these"; large for pictures that lie nearer than the classes do."""
        logs = self._widened(features)[0].amin(1).clamp(min=1e-12).log()
        wider = math.sqrt(1 + 1 / max(int((self.counts > 0).sum()), 1))
        return (self.centre - logs) / (self.deviation * wider)

    def members(self, features: Tensor, coverage: float) -> Tensor:
        """Bool ``[n, N + 1]``: which labels are in the set of each picture; the last is "none of these".

        It is in every set that would be empty.

        Args:
            features: ``[n, D]``.
            coverage: in (0, 1), the share of pictures, of the classes and of strangers alike, whose set is right.
        """
        tasks = self.prior.scores(self.shot, self.together)
        inside = self.scores(features) <= limit(tasks, self.support_scores, coverage)
        inside &= self.counts > 0
        nearest = self.prior.nearness(coverage, self.shot, int((self.counts > 0).sum()))
        none = (self.nearness(features) <= nearest) | ~inside.any(1)
        return torch.cat([inside, none.unsqueeze(1)], 1)


def calibrate_sets(
    features: Tensor, labels: Tensor, calibration: Calibration, fitted_on: str, tasks: int = 200, seed: int = 0
) -> SetPrior:
    """The scores' quantiles over auxiliary tasks of five classes (fewer, if there are not twice as many).

    Args:
        features: ``[n, D]`` of pictures of classes that the encoder was not trained on.
        labels: int64 ``[n]``.
        calibration: the encoder's.
        fitted_on: what they are.
        tasks: how many for each number of pictures per class.

    Raises:
        InputError: if there are fewer than four classes, or fewer than two pictures of some.
    """
    generator = torch.Generator().manual_seed(seed)
    members = [(labels == label).nonzero().flatten() for label in labels.unique()]
    way = min(5, len(members) // 2)
    least = min(map(len, members))
    if way < 2 or least < 2:
        raise InputError(
            f"sets are calibrated on four classes of two pictures or more; received {len(members)} classes, the "
            f"smallest of {least}."
        )
    made = SetPrior(fitted_on=fitted_on)
    for shot in (shot for shot in SHOTS if shot < least):
        genuine, strangers, together = [], [], []
        for _ in range(tasks):
            chosen = torch.randperm(len(members), generator=generator)[: 2 * way].tolist()
            drawn = [members[i][torch.randperm(len(members[i]), generator=generator)[: shot + 5]] for i in chosen]
            support = torch.cat([rows[:shot] for rows in drawn[:way]])
            own = features[support], torch.arange(way).repeat_interleave(shot), way, calibration
            asked_together = torch.cat([features[rows[shot:]] for rows in drawn[:way]])
            sets, told = Sets(*own), Sets(*own, unlabelled=asked_together)
            for label, rows in enumerate(drawn):
                asked = features[rows[shot:]]
                if label < way:
                    genuine.append(sets.scores(asked)[:, label])
                    together.append(told.scores(asked)[:, label])
                else:
                    strangers.append(sets.nearness(asked))
        for part, found in ((made.genuine, genuine), (made.strangers, strangers), (made.together, together)):
            part[str(shot)] = [round(float(q), 4) for q in np.quantile(torch.cat(found).numpy(), LEVELS)]
    return made


def embedded_sets(encoder: Encoder, bank: ImageBank, calibration: Calibration) -> SetPrior:
    """`calibrate_sets` on a bank's pictures, embedded as the classifier does."""
    encoder = copy.deepcopy(encoder).float().eval()
    features = shortened(embed_bank(encoder, bank, Device.choose("cpu")).cpu(), calibration.normalise)
    return calibrate_sets(features, bank.labels.cpu(), calibration, f"{bank.dataset}, {bank.split} split")


def mean_prior(priors: list[SetPrior], fitted_on: str) -> SetPrior:
    """The mean of several quantile functions, where auxiliary tasks come from several sources."""
    made = SetPrior(fitted_on=fitted_on)
    for part in ("genuine", "strangers", "together"):
        for shot in getattr(priors[0], part):
            values = np.mean([getattr(prior, part)[shot] for prior in priors], 0)
            getattr(made, part)[shot] = [round(float(value), 4) for value in values]
    return made
