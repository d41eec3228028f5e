"""Episodes without labels: classes that are single pictures, or groups of them, shown under random warps."""

from __future__ import annotations

import torch
from torch import Tensor

from episodes.bank import ImageBank
from episodes.errors import InputError
from episodes.rng import below, distinct, fold
from episodes.sampler import EpisodeIndices, EpisodeSampler


def picture_classes(bank: ImageBank) -> ImageBank:
    """A bank whose classes are the single pictures of another, known by number alone: no label is kept.

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


def group_classes(bank: ImageBank, groups: Tensor) -> ImageBank:
    """A bank whose classes are groups of another's pictures, known by number alone: no label is kept.

    Args:
        groups: int64 ``[M]``, the group of each picture; a negative one leaves its picture out.

    Raises:
        InputError: if there is not one number per picture.
    """
    if groups.shape != (len(bank),):
        raise InputError(f"groups must have one number for each of the {len(bank)} pictures; received {groups.shape}.")
    order = groups.argsort(stable=True)
    order = order[groups[order] >= 0]
    _, sizes = torch.unique_consecutive(groups[order], return_counts=True)
    return ImageBank(
        images=bank.images[order],
        offsets=torch.cat((sizes.new_zeros(1), sizes.cumsum(0))),
        class_names=tuple(map(str, range(len(sizes)))),
        dataset=bank.dataset,
        split=bank.split,
        polarity=bank.polarity,
        notes=bank.notes,
    )


class ViewSampler(EpisodeSampler):
    """Episodes whose pictures may come again within a class, to be shown under another warp each time.

    Classes need one picture. Each of the ``shot + query`` places of a class is drawn among its pictures
    independently, so a class of one picture gives that picture every time. Episode ``i`` is a pure function
    of ``(seed, stream, i)``, as in `EpisodeSampler`, whose arguments these are.
    """

    def supply(self, counts: Tensor) -> Tensor:
        return counts * (self.shot + self.query)

    def draw(self, episodes: Tensor) -> EpisodeIndices:
        key = fold(self._key, episodes)
        chosen = distinct(fold(key, 0), len(self.eligible), self.way)
        image_keys = fold(fold(key, 1).unsqueeze(-1), torch.arange(self.way, device=key.device))
        places = torch.arange(self.shot + self.query, device=key.device)
        within = below(fold(image_keys.unsqueeze(-1), places), self.counts[chosen].unsqueeze(-1))
        return EpisodeIndices(
            classes=self.eligible[chosen],
            images=self.starts[chosen].unsqueeze(-1) + within,
            shot=self.shot,
            turns=below(fold(image_keys, -2), 4) if self.turns else None,
        )
