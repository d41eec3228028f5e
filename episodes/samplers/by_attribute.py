"""WithinSampler: episodes whose classes share a value of an attribute, such as one alphabet."""

from __future__ import annotations

import torch
from torch import Tensor

from episodes.bank import ImageBank
from episodes.counter_rng import below, distinct, fold
from episodes.errors import InputError
from episodes.samplers.base import EpisodeIndices, EpisodeSampler
from episodes.shape import Episodes, Within


class WithinSampler(EpisodeSampler):
    """Episodes among the classes of one value of an attribute; a pure function of ``(seed, stream, i)`` as ever.

    Lake's one-shot task is of this kind: twenty characters of one alphabet. They are harder to tell apart than
    twenty of any alphabets, as one hand and one style wrote them all.

    Args:
        episodes: ``within`` says which attribute, and how often; None stands for ``Within()``. Values with fewer than
            ``way`` classes of enough pictures are left out; the others are equally likely. Classes whose value is
            unknown are in no such episode.

    Raises:
        InputError: if the bank lacks the attribute, no value of it has enough classes, or the classes differ in
            size and ``same_hands`` is set.
    """

    def __init__(self, bank: ImageBank, episodes: Episodes) -> None:
        super().__init__(bank, episodes)
        way, shot, query = self.way, self.shot, self.query
        within = episodes.within or Within()
        attribute, share = within.attribute, within.share
        if attribute not in bank.attributes:
            raise InputError(
                f"episodes within {attribute!r} need that attribute; the classes of {bank.dataset} have: "
                f"{', '.join(bank.attributes) or 'none'}."
            )
        if not 0 <= share <= 1:
            raise InputError(f"the share of episodes within {attribute!r} must be in [0, 1]; received {share}.")
        values = bank.attributes[attribute].values[self.spans[:, 2]]
        order = values.argsort(stable=True)
        # classes of one value lie behind each other, so that a group is a start and a size; those of none come first
        self.spans = self.spans[order]
        known = values[values >= 0]
        sizes = torch.bincount(known, minlength=1)
        firsts = len(values) - len(known) + sizes.cumsum(0) - sizes
        large = torch.nonzero(sizes >= way).flatten()
        if not len(large):
            raise InputError(
                f"{way}-way episodes within {attribute!r} need a value with {way} classes of at least {shot + query} "
                f"pictures; the largest in the {bank.split} split of {bank.dataset} has {int(sizes.max())}. Ask for "
                "fewer ways, shots or queries."
            )
        self.group_starts, self.group_sizes = firsts[large], sizes[large]
        self.within = within
        counts = self.spans[:, 1]
        if within.same_hands and len(counts.unique()) > 1:
            raise InputError(
                f"episodes of the same hands need classes of as many pictures each; those of {bank.dataset} have "
                f"{int(counts.min())} to {int(counts.max())}."
            )

    def draw(self, episodes: Tensor) -> EpisodeIndices:
        key = fold(self._key, episodes)
        group = below(fold(key, -3), len(self.group_starts))
        narrow = below(fold(key, -4), 1 << 24) < round(self.within.share * (1 << 24))
        start = self.group_starts[group].masked_fill(~narrow, 0)
        size = self.group_sizes[group].masked_fill(~narrow, len(self.spans))
        chosen = start.unsqueeze(-1) + distinct(fold(key, 0), size, self.way)
        starts, counts, classes = self.spans[chosen].unbind(-1)
        image_keys = fold(fold(key, 1).unsqueeze(-1), torch.arange(self.way, device=key.device))
        if self.within.same_hands:
            numbers = distinct(fold(key, 2), counts[:, 0], self.shot + self.query).unsqueeze(-2)
        else:
            numbers = distinct(image_keys, counts, self.shot + self.query)
        turns = below(fold(image_keys, -2), 4) if self.turns else None
        return EpisodeIndices(
            classes=classes,
            images=starts.unsqueeze(-1) + numbers,
            shot=self.shot,
            turns=turns,
        )
