"""Several training seeds of a method: their mean, their spread, and how surely one method's error is lower."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from metagvae.encoders.joined import SIGN
from metagvae.evaluation.class_interval import ClassJackknife, student_quantile
from metagvae.evaluation.results import PairedDifference, Result, interval, paired_difference

SEED = re.compile(r"[-_/]seed(0|[1-9]\d*)$")
NUMBER = re.compile(rf"(?<=[-_/]seed)(0|[1-9]\d*)(?=$|{re.escape(SIGN)})")
SAME = ("learner", "norm", "features", "transductive", "warps", "precision")  # in all seeds of one method
LEAST = 3  # seeds: of two, Student's t has one degree of freedom, and its interval is of no use


def stem(method: str) -> str:
    """A method's name without a trailing ``-seedN``, of a joined one that of its parts; see `seed_named`."""
    found = seed_named(method)
    return method if found is None else SIGN.join(SEED.sub("", part) for part in method.split(SIGN))


def seed_named(method: str) -> int | None:
    """The training seed that a method's name ends in, of a joined one that all parts with a seed have.

    None without one, or if they differ: ``A-seed0+A-seed1`` is one method of two networks, of no seed.
    """
    numbers = {int(found[1]) for found in map(SEED.search, method.split(SIGN)) if found}
    return numbers.pop() if len(numbers) == 1 else None


@dataclass(frozen=True)
class Trained:
    """One method on one data set and shape: a result, and of which training seeds it is the mean.

    ``seeds`` is empty of a method whose name has no ``seedN``: nothing is known of its seeds.
    """

    result: Result
    seeds: dict[int, Result]


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
    """The fraction of the baseline's error that the other method saves, over training seeds they share.

    The mean over seeds of ``1 - other / baseline``, each on the same episodes, and the half width of its 95 %
    interval by Student's t with ``seeds - 1`` degrees of freedom: it speaks of trainings yet to come, where a paired
    difference over episodes speaks of these. None of two seeds: that interval would be 12.7 standard errors.
    ``left_out`` are the shared seeds with which the baseline makes no mistake, so that there is nothing to divide by.
    """

    other: str
    baseline: str
    dataset: str
    way: int
    shot: int
    seeds: int
    reduction: float
    half_width: float | None
    left_out: tuple[int, ...] = ()

    @property
    def clear_of_zero(self) -> bool:
        return self.half_width is not None and abs(self.reduction) > self.half_width

    def text(self) -> str:
        """One line, in percent."""
        half = "" if self.half_width is None else f" ± {100 * self.half_width:.1f}"
        few = f": fewer than {LEAST}, so no interval" if self.half_width is None else ""
        left = f"; without {_seeds(self.left_out)}: no mistake of the baseline's" if self.left_out else ""
        return (
            f"{self.other} against {self.baseline}, {self.dataset}, {self.way}-way {self.shot}-shot: "
            f"{100 * self.reduction:.1f}{half} ({self.seeds} seeds{few}{left})"
            f"{'' if self.clear_of_zero or few else '   (not clear of zero)'}"
        )


def _seeds(numbers: Iterable[int]) -> str:
    return f"seeds {', '.join(map(str, sorted(numbers)))}"


def _mean(members: Sequence[Result], name: str) -> Result:
    """A mean over training seeds; its per-episode errors are means too, so its intervals do not speak of seeds."""
    first, per_episode = members[0], np.mean([m.per_episode for m in members], axis=0)
    parts = [m.classes for m in members if m.classes]
    return replace(
        first,
        method=name,
        encoder=name,
        error=float(np.mean([m.error for m in members])),
        half_width=interval(per_episode),
        per_episode=per_episode,
        per_run=None if first.per_run is None else per_episode.tolist(),
        classes=ClassJackknife.mean(parts) if len(parts) == len(members) else None,
    )


def by_method(results: Sequence[Result]) -> list[Trained]:
    """Joins results that are one method trained from several seeds, in the order they were first named.

    They are if their names differ in the number after ``seed`` alone, and they were measured alike (`SAME`). A name
    without such a number stands for itself, and so does one that joins networks of several (`seed_named`).
    """
    groups: dict[tuple[object, ...], dict[int, Result]] = {}
    for result in results:
        seed = seed_named(result.method)
        alike = tuple(getattr(result, key) for key in ("dataset", "way", "shot", *SAME))
        name = result.method if seed is None else NUMBER.sub("", result.method)
        groups.setdefault((name, seed is None, *alike), {})[-1 if seed is None else seed] = result
    joined: list[Trained] = []
    for members in groups.values():
        first = next(iter(members.values()))
        name, seeds = first.method, {} if -1 in members else members
        if len(members) > 1:
            name = f"{stem(first.method)} ({len(members)} seeds)"
            here = [m.result.method for m in joined if (m.result.way, m.result.shot) == (first.way, first.shot)]
            if name in here:  # measured in another way, or named with another stroke
                name += f" of {first.method}"
        joined.append(Trained(first if len(members) == 1 else _mean(list(members.values()), name), seeds))
    return joined


def spreads_over_seeds(methods: Sequence[Trained]) -> list[SeedSpread]:
    """The spread of every method that was trained from several seeds."""
    found = []
    for trained in methods:
        r, errors = trained.result, np.array([m.error for m in trained.seeds.values()])
        if len(errors) > 1:
            parts = (len(errors), float(errors.mean()), float(errors.std(ddof=1)))
            found.append(SeedSpread(r.method, r.dataset, r.way, r.shot, *parts))
    return found


def paired_over_seeds(other: Trained, baseline: Trained) -> tuple[PairedDifference | None, str]:
    """The paired difference of two methods over the training seeds that both have, and what to say of the others.

    None where means over different numbers of seeds would have to be compared.
    """
    one, two = other.result, baseline.result
    shared = sorted(other.seeds.keys() & baseline.seeds.keys())
    if not other.seeds or not baseline.seeds or other.seeds.keys() == baseline.seeds.keys():
        return paired_difference(one, two), ""
    where = f"{one.method} against {two.method}, {one.way}-way {one.shot}-shot"
    if shared:
        a, b = (_mean([m.seeds[seed] for seed in shared], m.result.method) for m in (other, baseline))
        return paired_difference(a, b), f"{where}: paired over {_seeds(shared)} alone, which both have."
    if len(other.seeds) == len(baseline.seeds):
        return paired_difference(one, two), ""
    counts = f"{len(other.seeds)} and {len(baseline.seeds)}"
    return None, f"{where}: not paired, as they share no training seed and have {counts} of them."


def seed_reductions(methods: Sequence[Trained]) -> tuple[list[SeedReduction], list[str]]:
    """Every method's reduction against each before it, where both were trained from two or more same seeds.

    Also a sentence for each pair that has none because the baseline makes no mistake.
    """
    found, notes = [], []
    for baseline, other in combinations([m for m in methods if len(m.seeds) > 1], 2):
        r = baseline.result
        if (r.dataset, r.way, r.shot) != (other.result.dataset, other.result.way, other.result.shot):
            continue
        shared = sorted(baseline.seeds.keys() & other.seeds.keys())
        left_out = tuple(seed for seed in shared if baseline.seeds[seed].error == 0)
        kept = [seed for seed in shared if seed not in left_out]
        names = stem(next(iter(other.seeds.values())).method), stem(next(iter(baseline.seeds.values())).method)
        if len(kept) < 2:
            if left_out:
                notes.append(
                    f"{names[0]} against {names[1]}, {r.way}-way {r.shot}-shot: no error reduction over seeds, as the "
                    f"baseline makes no mistake with {_seeds(left_out)}."
                )
            continue
        parts = np.array([1 - other.seeds[seed].error / baseline.seeds[seed].error for seed in kept])
        half = None
        if len(parts) >= LEAST:
            half = float(student_quantile(len(parts) - 1) * parts.std(ddof=1) / math.sqrt(len(parts)))
        found.append(SeedReduction(*names, r.dataset, r.way, r.shot, len(kept), float(parts.mean()), half, left_out))
    return found, notes
