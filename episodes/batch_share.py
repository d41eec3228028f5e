"""A batch split over several processes, each drawing the whole batch's random numbers and keeping its own rows.

So what an item gets does not depend on how many processes share its batch, nor on which of them it falls to.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """The items (episodes, pictures) of a step's batch that a process works on.

    Args:
        first: number of its first item in the batch.
        count: how many.
        total: items of the whole batch.
    """

    first: int = 0
    count: int = 1
    total: int = 1

    @property
    def whole(self) -> bool:
        return self.count == self.total

    @property
    def weight(self) -> float:
        """Its part of the batch: what a mean over its items counts for in the mean over all."""
        return self.count / self.total

    def rows(self, count: int) -> slice:
        """Where ``count`` rows of its own, equally many per item, lie among the rows of the whole batch."""
        each = count // self.count
        return slice(each * self.first, each * (self.first + self.count))

    def all_rows(self, count: int) -> int:
        """Rows of the whole batch if its own items have ``count``."""
        return count // self.count * self.total


_held = Share()


def held() -> Share:
    """The share of the step that is being computed; outside of `holding`, the whole."""
    return _held


@contextmanager
def holding(share: Share) -> Iterator[None]:
    """Within it, batches are that share of a step's batch, for draws and for statistics over the batch."""
    global _held
    before, _held = _held, share
    try:
        yield
    finally:
        _held = before


def _own_rows(draw: Callable[[int], Tensor], count: int) -> Tensor:
    share = held()
    return draw(count) if share.whole else draw(share.all_rows(count))[share.rows(count)]


def uniform(count: int, *sizes: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """``[count, *sizes]`` in [0, 1), for ``count`` rows of the share that is held.

    From ``generator``, drawn where it lives, or from torch's own of that device.
    """
    drawn_on = generator.device if generator else device
    draw = functools.partial(torch.rand, generator=generator, device=drawn_on)
    return _own_rows(lambda rows: draw(rows, *sizes), count).to(device)


def normal(count: int, *sizes: int, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Standard normal numbers ``[count, *sizes]``, for ``count`` rows of the share that is held."""
    return _own_rows(lambda rows: torch.randn(rows, *sizes, dtype=dtype, device=device), count)


def normal_like(values: Tensor) -> Tensor:
    """Standard normal numbers of the shape and kind of ``values``, rows of the share that is held."""
    return normal(len(values), *values.shape[1:], device=values.device, dtype=values.dtype)


def chosen(shares: Tensor, count: int) -> Tensor:
    """Numbers of ``shares``, int64 ``[count]``, each as often as its share, for ``count`` rows of the share held."""
    return _own_rows(lambda rows: torch.multinomial(shares, rows, replacement=True), count)
