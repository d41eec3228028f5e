"""Episodes without labels: classes that are single pictures, or small groups of them, shown under random warps."""

from __future__ import annotations

import torch
from torch import Tensor

from episodes.bank import ImageBank
from episodes.counter_rng import below, distinct, fold
from episodes.errors import InputError
from episodes.samplers.base import EpisodeIndices, EpisodeSampler
from episodes.shape import Episodes


def picture_classes(bank: ImageBank) -> ImageBank:
    """A bank whose classes are the single pictures of another, known by number alone: no label, no factor is kept.

    Quarter turns that the other bank holds as classes of their own become classes here too.
    """
    return ImageBank(
        images=bank.images,
        offsets=torch.arange(len(bank) + 1, device=bank.offsets.device),
        class_names=tuple(map(str, range(len(bank)))),
        dataset=bank.dataset,
        split=bank.split,
        polarity=bank.polarity,
        notes=bank.notes,
    )


class ViewSampler(EpisodeSampler):
    """Episodes whose classes are pictures: each place of a class shows it, or one of its group, once more.

    Meant to be shown under another warp each time. Episode ``i`` is a pure function of ``(seed, stream, i)``, as in
    `EpisodeSampler`, whose arguments these are.

    Args:
        bank: as `picture_classes` gives it, one picture a class.
        groups: int64 ``[M, G]``, the picture numbers that each picture's class is shown by, each place drawn
            independently; None for the picture itself every time.

    Raises:
        InputError: if ``groups`` does not have one row per picture, or the bank has fewer pictures than ways.

    Example:
        >>> import torch
        >>> from episodes import Episodes, EpisodeShape, ImageBank, ViewSampler, picture_classes
        >>> images = torch.randint(0, 256, (8, 6, 1, 28, 28), dtype=torch.uint8)
        >>> bank = ImageBank.from_classes([(f"class {i}", x) for i, x in enumerate(images)], dataset="noise")
        >>> sampler = ViewSampler(picture_classes(bank), Episodes(EpisodeShape(5, 1, 2)))
        >>> drawn = sampler.span(0, 1).images  # one image per class, three times
        >>> bool((drawn == drawn[..., :1]).all())
        True
    """

    def __init__(self, bank: ImageBank, episodes: Episodes, groups: Tensor | None = None) -> None:
        super().__init__(bank, episodes)
        if groups is None:
            groups = torch.arange(len(bank), device=bank.offsets.device).unsqueeze(-1)
        if bank.num_classes != len(bank) or len(groups) != len(bank):
            raise InputError(
                f"episodes of pictures need one class and one group for each of the {len(bank)} pictures; received "
                f"{bank.num_classes} classes and {len(groups)} groups. Use picture_classes(bank)."
            )
        self.groups = groups

    def supply(self, counts: Tensor) -> Tensor:
        return counts * (self.shot + self.query)

    def draw(self, episodes: Tensor) -> EpisodeIndices:
        key = fold(self._key, episodes)
        chosen = distinct(fold(key, 0), len(self.groups), self.way)
        image_keys = fold(fold(key, 1).unsqueeze(-1), torch.arange(self.way, device=key.device))
        places = torch.arange(self.shot + self.query, device=key.device)
        member = below(fold(image_keys.unsqueeze(-1), places), self.groups.shape[1])
        return EpisodeIndices(
            classes=chosen,
            images=self.groups[chosen].gather(-1, member),
            shot=self.shot,
            turns=below(fold(image_keys, -2), 4) if self.turns else None,
        )
