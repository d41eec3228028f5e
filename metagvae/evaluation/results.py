"""Few-shot errors with their intervals, paired differences on the same episodes, and the table of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from episodes import InputError
from metagvae.evaluation.class_interval import LEAST, ClassInterval, ClassJackknife, percent, student_quantile
from metagvae.evaluation.text_table import text_table


def interval(values: np.ndarray) -> float:
    """Half width of the 95 % interval of a mean: 1.96 s / sqrt(n), s with n - 1 degrees of freedom."""
    if len(values) < 2:
        return math.nan
    return float(1.96 * values.std(ddof=1) / math.sqrt(len(values)))


def interval_over_units(values: np.ndarray, units: np.ndarray) -> float:
    """Half width of the 95 % interval of a mean whose values come in units alike in themselves, such as characters.

    The variance is that of the units' sums (Liang & Zeger, Biometrika 1986), by Student's t over the units.

    Args:
        values: float64 ``[n]``.
        units: int ``[n]``, the unit of each.
    """
    numbers = np.unique(units, return_inverse=True)[1]
    sums = np.bincount(numbers, values - values.mean())
    count = len(sums)
    if count < 2:
        return math.nan
    deviation = math.sqrt(count / (count - 1) * (sums**2).sum()) / len(values)
    return student_quantile(count - 1) * deviation


@dataclass
class Result:
    """One learner's few-shot error on one data set and episode shape; errors are fractions in [0, 1].

    ``within`` names the attribute that the classes of an episode share, ``warps`` how many warped copies of each
    picture the features are averaged with, ``per_run`` the error of each episode that the data set prescribes,
    ``classes`` what the interval over classes is made of.
    """

    method: str
    dataset: str
    split: str
    split_hash: str
    way: int
    shot: int
    query: int
    episodes: int
    seed: int
    encoder: str
    features: str
    learner: str
    norm: str
    transductive: bool
    rotations: str
    precision: str
    error: float
    half_width: float
    per_episode: np.ndarray = field(repr=False)
    within: str = ""
    warps: int = 0
    per_run: list[float] | None = None
    classes: ClassJackknife | None = field(default=None, repr=False)

    @property
    def over_classes(self) -> ClassInterval | None:
        """The 95 % interval over the choice of classes."""
        return self.classes.interval() if self.classes else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the per-episode errors left out."""
        plain = {key: value for key, value in vars(self).items() if key not in ("per_episode", "classes")}
        return {**plain, "over_classes": self.classes.to_dict() if self.classes else None}

    def of_seed(self, joined: str) -> dict[str, Any]:
        """Plain values of one training seed: those in which it differs from the result ``joined`` of all seeds."""
        kept = ("method", "dataset", "way", "shot", "error", "half_width", "per_run", "over_classes")
        plain = self.to_dict()
        return {"joined": joined, **{key: plain[key] for key in kept if plain[key] is not None}}


@dataclass
class PairedDifference:
    """Mean of (other - baseline) over the same episodes, with its 95 % interval; below 0 other is better.

    ``classes`` is what the interval over classes is made of.
    """

    other: str
    baseline: str
    dataset: str
    way: int
    shot: int
    difference: float
    half_width: float
    classes: ClassJackknife | None = field(default=None, repr=False)

    @property
    def clear_of_zero(self) -> bool:
        return abs(self.difference) > self.half_width

    @property
    def over_classes(self) -> ClassInterval | None:
        """The 95 % interval over the choice of classes."""
        return self.classes.interval(difference=True) if self.classes else None

    def mark(self) -> str:
        """A remark where it is not clear of zero; empty where it is, over episodes and over classes."""
        over = self.over_classes
        if not self.clear_of_zero:
            return "(not clear of zero)"
        return "" if over is None or over.clear_of_zero else f"(not clear of zero over {over.drawn()})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        plain = {key: value for key, value in vars(self).items() if key != "classes"}
        plain["clear_of_zero"] = self.clear_of_zero
        return {**plain, "over_classes": self.classes.to_dict(difference=True) if self.classes else None}


def paired_difference(other: Result, baseline: Result) -> PairedDifference:
    """The paired difference of two results.

    Raises:
        InputError: if they were not measured on the same episodes.
    """
    for key in ("dataset", "split", "split_hash", "way", "shot", "query", "episodes", "seed", "rotations", "within"):
        if getattr(other, key) != getattr(baseline, key):
            raise InputError(
                f"{other.method} and {baseline.method} were not measured on the same episodes: {key} is "
                f"{getattr(other, key)} and {getattr(baseline, key)}."
            )
    gap = other.per_episode - baseline.per_episode
    classes = other.classes.minus(baseline.classes) if other.classes and baseline.classes else None
    return PairedDifference(
        other.method, baseline.method, other.dataset, other.way, other.shot, float(gap.mean()), interval(gap), classes
    )


def legend(results: Sequence[Result]) -> str:
    """The meaning of the numbers of `format_table`, and how far they hold for other classes."""
    over = next((r.over_classes for r in results if r.classes), None)
    episodes = "± half of the 95 % interval over episodes"
    if over is None:
        return f"few-shot error in %, mean {episodes}"
    classes = f"[95 % interval over the {over.drawn()}]"
    text = f"few-shot error in %, mean {f'{classes} {episodes}' if over.few else f'{episodes} {classes}'}\n"
    if over.units < LEAST:
        return f"{text}{over.drawn()}: too few to tell how the error differs on others"
    return (
        f"{text}the error on as many others spreads {math.sqrt(2):.2f} times as far (other_low, other_high in the JSON)"
    )


def format_table(results: Sequence[Result]) -> str:
    """A plain-text table of errors in percent, one row per method and data set, one column per shape."""
    shapes = sorted({(r.way, r.shot) for r in results})
    header = ["method", "data", "norm", "setting"] + [f"{way}-way {shot}-shot" for way, shot in shapes]
    rows: dict[tuple[str, str, str, str], dict[tuple[int, int], str]] = {}
    for r in results:
        setting = "transductive" if r.transductive else "inductive"
        cell = percent(r.error, r.half_width, r.over_classes)
        rows.setdefault((r.method, f"{r.dataset} {r.split}", r.norm, setting), {})[r.way, r.shot] = cell
    lines = [header, *([*key, *(cells.get(shape, "-") for shape in shapes)] for key, cells in rows.items())]
    return text_table(lines, rule=True)
