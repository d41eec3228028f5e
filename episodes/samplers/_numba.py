"""The draw compiled for processors, by numba where it is installed (the extra ``fast``).

The numbers are those of `episodes.counter_rng`, bit for bit; only the time differs: 64 draws side by side in registers
instead of some hundred passes over small tensors. Without numba, or with ``METAGVAE_COMPILED=0``, torch draws.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from episodes.counter_rng import GOLDEN, MULTIPLY_1, MULTIPLY_2

LANES = 64  # draws side by side: enough for the widest registers, few enough for the nearest cache
_TURN = (1 << 64) - 2  # the counter -2 of a class's key gives its quarter turn


def _build() -> Callable[..., Any]:
    """The kernel, compiled at its first call and kept on disk where numba finds a place."""
    from numba import njit

    golden, first, second = (np.uint64(x & ((1 << 64) - 1)) for x in (GOLDEN, MULTIPLY_1, MULTIPLY_2))
    one, half = np.uint64(1), np.uint64(32)

    @njit(inline="always")
    def fold(key, value):  # type: ignore[no-untyped-def]
        x = key + (value + one) * golden
        x = (x ^ (x >> np.uint64(30))) * first
        x = (x ^ (x >> np.uint64(27))) * second
        return x ^ (x >> np.uint64(31))

    @njit
    def distinct(keys, limits, chosen, ranks, taken):  # type: ignore[no-untyped-def]
        # LANES draws side by side: inner loops without branches over lanes become wide instructions
        count = len(chosen)
        for step in range(count):
            for lane in range(LANES):
                bits = fold(keys[lane], np.uint64(step)) >> half
                chosen[step, lane] = np.int64((bits * np.uint64(limits[lane] - count + step + 1)) >> half)
                ranks[step, lane] = np.int64(fold(keys[lane], np.uint64(step + count)))
        for step in range(1, count):
            taken[:] = 0
            for earlier in range(step):
                for lane in range(LANES):
                    taken[lane] |= chosen[earlier, lane] == chosen[step, lane]
            for lane in range(LANES):
                chosen[step, lane] = limits[lane] - count + step if taken[lane] else chosen[step, lane]

    @njit
    def place_by_rank(ranks, step, before):  # type: ignore[no-untyped-def]
        before[:] = 0
        for other in range(step):  # of equal ranks, once in a trillion episodes, the earlier goes first
            for lane in range(LANES):
                before[lane] += ranks[other, lane] <= ranks[step, lane]
        for other in range(step + 1, len(ranks)):
            for lane in range(LANES):
                before[lane] += ranks[other, lane] < ranks[step, lane]

    def draw(base, numbers, spans, classes, images, turns):  # type: ignore[no-untyped-def]
        tasks, way, size = images.shape
        keys, limits = np.zeros(LANES, np.uint64), np.zeros(LANES, np.int64)
        counters = np.zeros(LANES, np.int64)
        chosen, ranks = np.empty((way, LANES), np.int64), np.empty((way, LANES), np.int64)
        limits[:] = len(spans)
        for first in range(0, tasks, LANES):
            lanes = min(LANES, tasks - first)
            for lane in range(lanes):
                keys[lane] = fold(fold(base, np.uint64(numbers[first + lane])), np.uint64(0))
            distinct(keys, limits, chosen, ranks, counters)
            for step in range(way):
                place_by_rank(ranks, step, counters)
                for lane in range(lanes):
                    classes[first + lane, counters[lane]] = chosen[step, lane]
        rows = classes.reshape(-1)
        here = np.empty((len(rows), 3), np.int64)
        for row in range(len(rows)):  # a loop of loads alone: those that miss the caches wait side by side
            span = spans[rows[row]]
            here[row, 0], here[row, 1], here[row, 2] = span[0], span[1], span[2]
        out = images.reshape(len(rows), size)
        turned = turns.reshape(-1)
        chosen, ranks = np.empty((size, LANES), np.int64), np.empty((size, LANES), np.int64)
        for first in range(0, len(rows), LANES):
            lanes = min(LANES, len(rows) - first)
            limits[:] = size
            for lane in range(lanes):
                task, place = divmod(first + lane, way)
                keys[lane] = fold(fold(fold(base, np.uint64(numbers[task])), one), np.uint64(place))
                limits[lane] = here[first + lane, 1]
                if len(turned):
                    bits = fold(keys[lane], np.uint64(_TURN)) >> half
                    turned[first + lane] = np.int64((bits * np.uint64(4)) >> half)
            distinct(keys, limits, chosen, ranks, counters)
            for step in range(size):
                place_by_rank(ranks, step, counters)
                for lane in range(lanes):
                    out[first + lane, counters[lane]] = chosen[step, lane] + here[first + lane, 0]
        for row in range(len(rows)):
            rows[row] = here[row, 2]

    try:
        return njit(cache=True)(draw)
    except RuntimeError:  # no folder that numba may write its cache to
        return njit(draw)


@cache
def kernel() -> Callable[..., Any] | None:
    """The compiled draw, or None where it cannot be had."""
    if os.environ.get("METAGVAE_COMPILED", "1") == "0":
        return None
    try:
        return _build()
    except ImportError:
        return None


def draw(
    key: Tensor, numbers: Tensor, spans: Tensor, way: int, size: int, turns: bool
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """The draw of `EpisodeSampler.draw` for the same arguments, or None without the kernel.

    Args:
        key: int64 scalar, the sampler's key.
        numbers: int64 ``[T]``, episode numbers.
        spans: int64 ``[E, 3]``, of each class to draw from: first image, number of images, class number.
        way, size: N, and K + Q.
        turns: draw quarter turns too.

    Returns:
        classes ``[T, N]``, images ``[T, N, size]``, turns ``[T, N]`` or None; all int64.
    """
    found = kernel()
    if found is None:
        return None
    classes = torch.empty(len(numbers), way, dtype=torch.int64)
    images = torch.empty(len(numbers), way, size, dtype=torch.int64)
    turned = torch.empty((len(numbers), way) if turns else (0, 0), dtype=torch.int64)
    base = np.uint64(int(key) & ((1 << 64) - 1))
    found(base, *(array.numpy() for array in (numbers.contiguous(), spans, classes, images, turned)))
    return classes, images, turned if turns else None
