"""Pen strokes: read from text that may be broken, and drawn as maps of the pen's direction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from episodes.errors import InputError

MAX_POINTS = 100_000
_STEP = 0.25  # of a pixel of the map, at most between two dabs of the pen


def read_strokes(data: bytes, where: str) -> list[Tensor]:
    """Strokes of one drawing, each ``[points, 2]`` of x and y with y upwards, as Omniglot's files hold them.

    The text begins with ``START``; a line is ``x,y,t``, and ``BREAK`` ends a stroke.

    Raises:
        InputError: if it is no such text, holds numbers that are not finite, or more than `MAX_POINTS` points.
    """
    lines = data.decode("utf-8", "replace").split()
    if not lines or lines[0] != "START":
        raise InputError(f"{where} holds no pen strokes; its first line should be START.")
    if len(lines) > MAX_POINTS:
        raise InputError(f"{where} has {len(lines):,} lines; of pen strokes at most {MAX_POINTS:,} are read.")
    strokes: list[list[tuple[float, float]]] = [[]]
    for number, line in enumerate(lines[1:], 2):
        if line == "BREAK":
            strokes.append([])
            continue
        try:
            x, y, _ = map(float, line.split(","))
        except ValueError:
            x = y = math.nan
        if not (abs(x) < 1e6 and abs(y) < 1e6):
            raise InputError(f"{where}, line {number}: a pen's point is x,y,t in numbers; received {line[:60]!r}.")
        strokes[-1].append((x, y))
    return [torch.tensor(stroke, dtype=torch.float64) for stroke in strokes if len(stroke) > 1]


def direction_maps(strokes: Sequence[Tensor], size: int, bins: int = 8, extent: float = 105.0) -> Tensor:
    """Where the pen went, and which way: float32 ``[bins, size, size]`` in [0, 1].

    Bin k is the direction 2 pi k / bins, counter-clockwise from the right; a direction between two bins is shared by
    them. The pen is as wide as a pixel of the map.

    Args:
        strokes: as `read_strokes` gives them.
        extent: side of the paper, which lies at x in [0, extent] and y in [-extent, 0].

    Example:
        >>> import torch
        >>> from episodes.strokes import direction_maps
        >>> line = torch.tensor([[10.0, -52.5], [90.0, -52.5]])  # from left to right
        >>> direction_maps([line], size=21, bins=4).amax((1, 2)).round()
        tensor([1., 0., 0., 0.])
    """
    maps = torch.zeros(bins, size + 2, size + 2, dtype=torch.float64)
    for stroke in strokes:
        points, ways, ink = _dabs(stroke.double() * (size / extent))
        if not len(points):
            continue
        column, row = points[:, 0] + 0.5, -points[:, 1] + 0.5  # a pixel's middle is at half a pixel; one of border
        inside = (column > 0) & (column < size + 1) & (row > 0) & (row < size + 1)
        column, row, ways, ink = column[inside], row[inside], ways[inside], ink[inside]
        turn = (ways / (2 * math.pi) * bins) % bins
        low = turn.floor()
        for share, direction in ((1 - (turn - low), low.long() % bins), (turn - low, (low.long() + 1) % bins)):
            for down in (0, 1):
                for right in (0, 1):
                    y, x = row.floor().long() + down, column.floor().long() + right
                    near = (1 - (row - y).abs()) * (1 - (column - x).abs())
                    maps.index_put_((direction, y.clamp(max=size + 1), x.clamp(max=size + 1)), share * near * ink, True)
    return maps[:, 1:-1, 1:-1].clamp(max=1).float()


def _dabs(stroke: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points along a stroke ``[points, 2]``, at each the pen's direction in radians and the length it stands for."""
    moves = stroke.diff(dim=0)
    lengths = moves.norm(dim=1)
    kept = lengths > 1e-9
    starts, moves, lengths = stroke[:-1][kept], moves[kept], lengths[kept]
    counts = (lengths / _STEP).ceil().long().clamp(max=MAX_POINTS)
    which = torch.repeat_interleave(torch.arange(len(counts)), counts)
    first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    along = (torch.arange(len(which)) - first + 0.5) / counts[which]
    ways = torch.atan2(moves[:, 1], moves[:, 0])
    return starts[which] + along[:, None] * moves[which], ways[which], (lengths / counts)[which]
