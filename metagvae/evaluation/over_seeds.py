"""What several training seeds of a method say: their mean, their spread, and how surely one method errs less."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.stats import t

from metagvae.evaluation.class_interval import ClassJackknife
from metagvae.evaluation.evaluator import Result, interval

SEED = re.compile(r"[-_/]seed(\d+)$")


def stem(method: str) -> str:
    """A method's name without a trailing ``-seedN``."""
    return SEED.sub("", method)


@dataclass
class SeedSpread:
    """One method trained from several seeds: the mean of its errors and their standard deviation over seeds."""

    method: str
    dataset: str
    way: int
    shot: int
    seeds: int
    error: float
    deviation: float


@dataclass
class SeedReduction:
    """By what fraction of the baseline's error the other method errs less, over training seeds they share.

    The mean over seeds of ``1 - other / baseline``, each on the same episodes, and the half width of its 95 %
    interval by Student's t with ``seeds - 1`` degrees of freedom: it speaks of trainings yet to come, where a paired
    difference over episodes speaks of these.
    """

    other: str
    baseline: str
    dataset: str
    way: int
    shot: int
    seeds: int
    reduction: float
    half_width: float

    @property
    def clear_of_zero(self) -> bool:
        return abs(self.reduction) > self.half_width

    def text(self) -> str:
        """One line, in percent."""
        return (
            f"{self.other} against {self.baseline}, {self.dataset}, {self.way}-way {self.shot}-shot: "
            f"{100 * self.reduction:.1f} ± {100 * self.half_width:.1f} ({self.seeds} seeds)"
            f"{'' if self.clear_of_zero else '   (not clear of zero)'}"
        )


def over_seeds(results: Sequence[Result]) -> tuple[list[Result], list[SeedSpread]]:
    """Joins results whose method names differ only in a trailing ``-seedN``.

    A joined result's per-episode errors are means over the training seeds, so its interval speaks of episodes
    alone; the spread over seeds is reported apart.
    """
    groups: dict[tuple[str, str, int, int], list[Result]] = {}
    for result in results:
        groups.setdefault((stem(result.method), result.dataset, result.way, result.shot), []).append(result)
    joined, spreads = [], []
    for (method, dataset, way, shot), members in groups.items():
        if len(members) == 1:
            joined.append(members[0])
            continue
        per_episode = np.mean([m.per_episode for m in members], axis=0)
        errors = np.array([m.error for m in members])
        name = f"{method} ({len(members)} seeds)"
        joined.append(
            replace(
                members[0],
                method=name,
                encoder=name,
                error=float(errors.mean()),
                half_width=interval(per_episode),
                per_episode=per_episode,
                per_run=None if members[0].per_run is None else per_episode.tolist(),
                classes=ClassJackknife.mean([m.classes for m in members if m.classes]) if members[0].classes else None,
            )
        )
        spreads.append(
            SeedSpread(name, dataset, way, shot, len(members), float(errors.mean()), float(errors.std(ddof=1)))
        )
    return joined, spreads


def seed_reductions(results: Sequence[Result]) -> list[SeedReduction]:
    """Every method's reduction against each method before it, where both were trained from two or more same seeds."""
    errors: dict[tuple[str, int, int], dict[str, dict[str, float]]] = {}
    for result in results:
        seed = SEED.search(result.method)
        if seed:
            methods = errors.setdefault((result.dataset, result.way, result.shot), {})
            methods.setdefault(stem(result.method), {})[seed[1]] = result.error
    found = []
    for (dataset, way, shot), methods in errors.items():
        for baseline, other in combinations(methods, 2):
            shared = [s for s in methods[baseline] if methods[other].get(s) is not None and methods[baseline][s] > 0]
            if len(shared) < 2:
                continue
            parts = np.array([1 - methods[other][s] / methods[baseline][s] for s in shared])
            half = float(t.ppf(0.975, len(parts) - 1) * parts.std(ddof=1) / math.sqrt(len(parts)))
            found.append(SeedReduction(other, baseline, dataset, way, shot, len(parts), float(parts.mean()), half))
    return found
