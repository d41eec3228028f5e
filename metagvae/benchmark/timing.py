"""Two ways of doing the same work, timed by turns in one process."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Way:
    """One of two ways to do the same work.

    Args:
        label: what it is, for the table.
        work: does a piece of it; called again and again.
        units: how much of it one call does, in what the row counts (episodes, pictures, steps).
        warm: called once beforehand instead of ``work``, where a whole call takes long.
    """

    label: str
    work: Callable[[], object]
    units: float = 1.0
    warm: Callable[[], object] | None = None


@dataclass(frozen=True)
class Clock:
    """Time of work whose end may lie on another device.

    Args:
        wait: returns once everything asked of the device is done.
        processor: count the seconds that this process computes instead of the wall clock's.
    """

    wait: Callable[[], None]
    processor: bool = False

    @classmethod
    def of(cls, device: torch.device, processor: bool = False) -> Clock:
        if device.type == "cuda":
            return cls(lambda: torch.cuda.synchronize(device), processor)
        return cls(lambda: None, processor)

    def now(self) -> float:
        return time.process_time() if self.processor else time.perf_counter()

    def seconds(self, work: Callable[[], object], calls: int = 1) -> float:
        """Seconds that ``calls`` calls take, from an idle device to an idle device."""
        self.wait()
        start = self.now()
        for _ in range(calls):
            work()
        self.wait()
        return self.now() - start


@dataclass(frozen=True)
class Samples:
    """Seconds per unit of work, a number per repeat; ``ours[i]`` and ``peer[i]`` were taken beside each other."""

    ours: tuple[float, ...]
    peer: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """How many times as long the peer took, per repeat."""
        return [peer / ours for ours, peer in zip(self.ours, self.peer, strict=True)]


def _prepared(clock: Clock, way: Way, least: float) -> tuple[int, float]:
    """Calls that last ``least`` seconds, and the seconds of one call after a first one."""
    (way.warm or way.work)()
    once = clock.seconds(way.work)
    return max(1, math.ceil(least / max(once, 1e-9))), once


def by_turns(clock: Clock, ours: Way, peer: Way, repeats: int, least: float) -> Samples:
    """Times both ways ``repeats`` times, by turns, and swaps who goes first each time.

    Each sample is as many calls as last ``least`` seconds; where one call lasts that long, the call that found
    so is the first sample.
    """
    ways = (ours, peer)
    prepared = [_prepared(clock, way, least) for way in ways]
    samples: list[list[float]] = [
        [once / way.units] if calls == 1 and repeats > 1 else []
        for way, (calls, once) in zip(ways, prepared, strict=True)
    ]
    if any(len(taken) == 0 for taken in samples):
        samples = [[], []]  # keep the pairs
    for number in range(repeats - len(samples[0])):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            calls = prepared[side][0]
            samples[side].append(clock.seconds(ways[side].work, calls) / (calls * ways[side].units))
    return Samples(tuple(samples[0]), tuple(samples[1]))


def alone(clock: Clock, way: Way, repeats: int, least: float) -> float:
    """Median seconds per unit of one way."""
    calls, _ = _prepared(clock, way, least)
    return statistics.median(clock.seconds(way.work, calls) / (calls * way.units) for _ in range(repeats))
