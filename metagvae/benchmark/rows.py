"""A row of the benchmark's table, and what every group of rows is given."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from episodes import InputError
from metagvae.benchmark.timing import Clock, Samples, Way, by_turns
from metagvae.compute.device import Device


@dataclass(frozen=True)
class Sizes:
    """How much each row measures; the tests take less.

    Args:
        drawn_classes: classes of 20 pictures in the bank that episodes are drawn from; as many as Omniglot trains on.
        classes: classes of the bank that more classes are compared with.
        many_classes: classes of the bank that shows what more classes cost.
        tasks: episodes per batch, and tasks per MAML step.
        steps_of: episodes per step of the prototypical network, one or more numbers.
        width: feature maps of Conv-4.
        episodes: of the evaluation.
        peer_episodes: of which the peer's time for all of them is extrapolated.
        pictures: in the set to pretrain on, where MNIST is not at hand.
        embedded: colour pictures of 84 x 84 that are embedded.
        ceiling: side of the matrices, and mebibytes of the copy, that measure the machine's ceilings.
    """

    drawn_classes: int = 4112
    classes: int = 1000
    many_classes: int = 1_000_000
    tasks: int = 32
    steps_of: tuple[int, ...] = (1, 4)
    width: int = 64
    episodes: int = 10_000
    peer_episodes: int = 100
    pictures: int = 60_000
    embedded: int = 2_000
    ceiling: int = 2048


@dataclass(frozen=True)
class Context:
    """The device, data and sizes that a group of rows is given.

    Args:
        device: where networks run and banks lie.
        repeats: samples per way; the table has their medians.
        least: seconds per sample, at least.
        data: folder of the data sets, as ``METAGVAE_DATA``; None takes that, then ./data.
        sizes: how much to measure.
        seed: of weights, pictures and episodes.
        processor_time: count the seconds that the process computes, on a processor shared with other work.
    """

    device: Device
    repeats: int = 5
    least: float = 0.3
    data: Path | None = None
    sizes: Sizes = field(default_factory=Sizes)
    seed: int = 0
    processor_time: bool = False

    @property
    def clock(self) -> Clock:
        return Clock.of(self.device.device, self.processor_time)

    def wanted(self, cpu: float | None, cuda: float | None) -> float | None:
        """The target on this kind of device; None for none."""
        return cuda if self.device.device.type == "cuda" else cpu

    def root(self, name: str) -> str | None:
        """A data set's own folder under ``data``."""
        return str(self.data / name) if self.data is not None else None

    def manual_seed(self) -> None:
        torch.manual_seed(self.seed)


@dataclass
class Row:
    """A measurement beside its peer's.

    Args:
        group, name: which row.
        peer: whose way it is compared with; empty where there is none.
        unit: of both values, such as ``episodes/s`` (more is better) or ``s`` (less is better).
        ours, theirs: medians over the repeats.
        ratio, low, high: median, least and largest over pairs of samples taken beside each other.
        sense: what is asked for: ``faster``, peer's time over ours; ``of it``, our cost over the peer's;
            ``seconds``, our own.
        wanted: at least that (``faster``), or at most (``of it``, ``seconds``).
        load: bytes or operations per second that ours moved or did, and the ceiling to hold it against.
        note: what a reader must know to read the figure.
    """

    group: str
    name: str
    peer: str
    unit: str
    ours: float | None = None
    theirs: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    sense: str = "faster"
    wanted: float | None = None
    load: tuple[float, str] | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the figure is what was wanted; None where nothing was wanted or measured."""
        figure = self.ours if self.sense == "seconds" else self.ratio
        if self.wanted is None or figure is None:
            return None
        return figure >= self.wanted if self.sense == "faster" else figure <= self.wanted

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reached": self.reached}


def row_of(samples: Samples, group: str, name: str, peer: str, unit: str, sense: str = "faster", **fields: Any) -> Row:
    """A row from samples of seconds per unit of work; a ``unit`` that ends in /s is of rates."""
    ratios = samples.ratios if sense == "faster" else [1 / r for r in samples.ratios]
    ours, theirs = statistics.median(samples.ours), statistics.median(samples.peer)
    if unit.endswith("/s"):
        ours, theirs = 1 / ours, 1 / theirs
    return Row(
        group, name, peer, unit, ours, theirs, statistics.median(ratios), min(ratios), max(ratios), sense, **fields
    )


def compare(
    context: Context,
    group: str,
    name: str,
    unit: str,
    ours: Way,
    peer: Callable[[], Way],
    peer_name: str,
    sense: str = "faster",
    repeats: int | None = None,
    load: Callable[[Samples], tuple[float, str]] | None = None,
    **fields: Any,
) -> Row:
    """Measures ours beside a peer's way; where the peer is not installed, the row says so.

    Args:
        peer: makes the peer's way; raises `InputError` where it cannot.
        peer_name: whose way it is, for the row that says so.
        load: bytes or operations per second of ours and the ceiling's name, from the samples.
    """
    try:
        theirs = peer()
    except InputError as error:
        return Row(group, name, peer_name, unit, sense=sense, note=f"not measured: {str(error).split('. ')[0]}")
    samples = by_turns(context.clock, ours, theirs, repeats or context.repeats, context.least)
    extra = {"load": load(samples)} if load else {}
    return row_of(samples, group, name, theirs.label, unit, sense, **extra, **fields)
