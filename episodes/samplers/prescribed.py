"""FixedEpisodes: the episodes that a data set itself prescribes, asked for like a sampler's."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from episodes.errors import InputError
from episodes.samplers.base import EpisodeIndices


class FixedEpisodes:
    """A list of episodes with the interface of `EpisodeSampler`.

    Args:
        drawn: all of them, ``[T, ...]``.

    Example:
        >>> import torch
        >>> from episodes import EpisodeIndices, FixedEpisodes
        >>> drawn = EpisodeIndices(torch.tensor([[3, 1]]), torch.tensor([[[30, 31], [10, 12]]]), shot=1)
        >>> fixed = FixedEpisodes(drawn)
        >>> len(fixed), fixed.way, fixed.shot, fixed.query
        (1, 2, 1, 1)
    """

    def __init__(self, drawn: EpisodeIndices) -> None:
        self.drawn = drawn
        self.way, self.shot = drawn.images.shape[1], drawn.shot
        self.query = drawn.images.shape[2] - drawn.shot

    def to(self, device: torch.device | str) -> FixedEpisodes:
        """The same episodes, their numbers on ``device``."""
        return FixedEpisodes(self.drawn.to(device))

    def __len__(self) -> int:
        return len(self.drawn.images)

    def draw(self, episodes: Tensor) -> EpisodeIndices:
        """The episodes of the given numbers (int64 ``[T]``).

        Raises:
            InputError: if there are not that many.
        """
        if len(episodes) and not 0 <= int(episodes.min()) <= int(episodes.max()) < len(self):
            raise InputError(
                f"there are {len(self)} prescribed episodes, numbered from 0; received {int(episodes.min())} to "
                f"{int(episodes.max())}."
            )
        turns = self.drawn.turns[episodes] if self.drawn.turns is not None else None
        return replace(
            self.drawn, classes=self.drawn.classes[episodes], images=self.drawn.images[episodes], turns=turns
        )

    def span(self, start: int, count: int) -> EpisodeIndices:
        """Episodes ``start`` to ``start + count - 1``; raises `InputError` as `draw` does."""
        if not 0 <= start <= start + count <= len(self):
            raise InputError(
                f"there are {len(self)} prescribed episodes, numbered from 0; received {start} to {start + count - 1}."
            )
        return self.drawn.tasks_from(start, count)
