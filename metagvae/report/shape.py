"""Which episodes a report measures: those asked for, else what the test classes can give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

WAY, SHOTS, QUERY = 5, (1, 5), 15


@dataclass(frozen=True)
class Shape:
    """Ways, shots and queries of episodes.

    Args:
        note: a sentence if they are smaller than usual because the data are.
    """

    way: int
    shots: tuple[int, ...]
    query: int
    note: str = ""


def choose_shape(
    counts: Tensor,
    way: int | None = None,
    shots: Sequence[int] | None = None,
    query: int | None = None,
    learners_way: int | None = None,
    prescribed: tuple[int, int] | None = None,
) -> Shape:
    """The shape asked for; what is left open is 5-way, 1 and 5 shots, 15 queries, or less if there is less.

    Args:
        counts: int64 ``[classes]``, pictures per class.
        learners_way: of a learner with a head of that many ways.
        prescribed: way and shot of episodes that the data set itself fixes.
    """
    if prescribed:
        return Shape(way or prescribed[0], tuple(shots or prescribed[1:]), query or 1)
    sizes = counts.sort(descending=True).values.tolist()
    usable = [size for size in sizes if size >= 2] or sizes
    ways = way or learners_way or max(2, min(WAY, len(usable)))
    smallest = usable[min(ways, len(usable)) - 1]
    chosen = tuple(shots or [shot for shot in SHOTS if shot == 1 or smallest > 2 * shot])
    queries = query or max(1, min(QUERY, smallest - max(chosen)))
    usual = (way or learners_way or WAY, tuple(shots or SHOTS), query or QUERY)
    note = ""
    if (ways, chosen, queries) != usual:
        note = (
            f"There are {len(usable)} classes of two images or more, and the smallest of those needed has "
            f"{smallest}: so {ways} ways and {queries} queries per class."
        )
    return Shape(ways, chosen, queries, note)
