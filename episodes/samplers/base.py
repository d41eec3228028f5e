"""EpisodeSampler: which images make episode i. No image is touched here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from episodes.bank import ImageBank
from episodes.counter_rng import below, distinct, fold
from episodes.errors import InputError
from episodes.samplers import _numba as compiled
from episodes.shape import STREAMS, Episodes, EpisodeShape


@dataclass(frozen=True)
class EpisodeIndices:
    """Which images make up T episodes.

    Args:
        classes: int64 ``[T, N]``, class numbers, distinct within an episode.
        images: int64 ``[T, N, K + Q]``, image numbers, distinct within an episode; the first K are support.
        shot: K.
        turns: int64 ``[T, N]`` quarter turns of each class, or None.
    """

    classes: Tensor
    images: Tensor
    shot: int
    turns: Tensor | None = None

    def to(self, device: torch.device | str) -> EpisodeIndices:
        """The same numbers on ``device``; the host does not wait for them to arrive."""
        classes, images = (x.to(device, non_blocking=True) for x in (self.classes, self.images))
        turns = None if self.turns is None else self.turns.to(device, non_blocking=True)
        return EpisodeIndices(classes, images, self.shot, turns)

    def tasks_from(self, start: int, count: int) -> EpisodeIndices:
        """``count`` of its tasks, a view."""
        part = slice(start, start + count)
        turns = None if self.turns is None else self.turns[part]
        return EpisodeIndices(self.classes[part], self.images[part], self.shot, turns)


def eligible_classes(counts: Tensor, shape: EpisodeShape, where: str) -> Tensor:
    """Numbers of the classes with enough pictures for episodes of a shape.

    Args:
        counts: int64 ``[classes]``, pictures per class.
        where: names the split in the error.

    Raises:
        InputError: if there are fewer than ``shape.way`` such classes.
    """
    way, shot, query = shape.way, shape.shot, shape.query
    eligible = torch.nonzero(counts >= shot + query).flatten()
    if len(eligible) < way:
        largest = int(counts.max()) if len(counts) else 0
        advice = f"Ask for at most {len(eligible)} ways, or for" if len(eligible) >= 2 else "Ask for"
        raise InputError(
            f"{way}-way {shot}-shot episodes with {query} queries need {way} classes of at least {shot + query} "
            f"pictures; {where} has {len(eligible)} such classes (of {len(counts)}; the largest class has {largest} "
            f"pictures). {advice} fewer shots or queries."
        )
    return eligible


class EpisodeSampler:
    """Draws N-way K-shot episodes; episode ``i`` is a pure function of ``(seed, stream, i)``.

    It is the same on every device, for any batch size and order, on any number of processes; the cost
    does not grow with the number of classes or images.

    Args:
        bank: where the classes and their sizes are read from. Classes with fewer than ``shot + query``
            images are left out.
        episodes: their shape, seed and stream, and whether each class gets a quarter turn.

    Raises:
        InputError: at once, if the bank has too few classes of enough images.

    Example:
        >>> import torch
        >>> from episodes import Episodes, EpisodeSampler, EpisodeShape, ImageBank
        >>> images = torch.zeros(8, 6, 1, 28, 28, dtype=torch.uint8)
        >>> bank = ImageBank.from_classes([(f"class {i}", x) for i, x in enumerate(images)], dataset="zeros")
        >>> sampler = EpisodeSampler(bank, Episodes(EpisodeShape(5, 1, 2), seed=7))
        >>> sampler.span(0, 10).images.shape  # ten episodes: 5 classes of 1 + 2 image numbers
        torch.Size([10, 5, 3])
    """

    def __init__(self, bank: ImageBank, episodes: Episodes) -> None:
        shape = episodes.shape
        self.episodes = episodes
        self.way, self.shot, self.query = shape.way, shape.shot, shape.query
        self.seed, self.stream, self.turns = episodes.seed, episodes.stream, episodes.rotations
        counts = bank.counts
        where = f"the {bank.split} split of {bank.dataset}"
        eligible = eligible_classes(self.supply(counts), shape, where)
        # of each class to draw from: first image, number of images, class number
        self.spans = torch.stack((bank.offsets[:-1][eligible], counts[eligible], eligible), -1)
        self._key = fold(torch.tensor(self.seed, device=eligible.device), STREAMS[self.stream])

    def supply(self, counts: Tensor) -> Tensor:
        """How many pictures classes of ``counts`` pictures (int64 ``[classes]``) can give an episode."""
        return counts

    def draw(self, episodes: Tensor) -> EpisodeIndices:
        """The episodes of the given numbers (int64 ``[T]``, on the bank's device)."""
        size = self.shot + self.query
        if episodes.device.type == "cpu":
            drawn = compiled.draw(self._key, episodes, self.spans, self.way, size, self.turns)
            if drawn is not None:
                classes, images, turns = drawn
                return EpisodeIndices(classes, images, self.shot, turns)
        key = fold(self._key, episodes)
        chosen = distinct(fold(key, 0), len(self.spans), self.way)
        starts, counts, classes = self.spans[chosen].unbind(-1)
        image_keys = fold(fold(key, 1).unsqueeze(-1), torch.arange(self.way, device=key.device))
        images = starts.unsqueeze(-1) + distinct(image_keys, counts, size)
        turns = below(fold(image_keys, -2), 4) if self.turns else None
        return EpisodeIndices(classes, images, self.shot, turns)

    def span(self, start: int, count: int) -> EpisodeIndices:
        """Episodes ``start`` to ``start + count - 1``."""
        return self.draw(torch.arange(start, start + count, device=self.spans.device))
