"""Banks of several data sets as one, each class named by the data set that it comes from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from episodes.bank import Attribute, ImageBank
from episodes.datasets.base import Dataset


class SideBySide(Dataset):
    """Base of data sets made of others, not all of which may be turned for ``rotations`` ``classes``."""

    def load(self, split: str) -> ImageBank:
        return self._checked(split, "classes" if self.rotations == "classes" else "none")

    def load_split(self, split: str) -> ImageBank:
        return self._checked(split, "none")

    def _checked(self, split: str, rotations: str) -> ImageBank:
        self.check_split(split)
        return self.joined(split, rotations)

    @abstractmethod
    def joined(self, split: str, rotations: str) -> ImageBank:
        """The bank of a split, its sources loaded with ``rotations`` where that makes sense of their classes."""


def side_by_side(banks: Sequence[tuple[str, ImageBank]], dataset: str, split: str) -> ImageBank:
    """One bank of all classes, ``SOURCE:NAME`` each, and the attributes that every bank has.

    So named, an encoder trained on it is refused on each of its sources.

    Args:
        banks: each by its source; of equal image shape and polarity.
    """
    counts = torch.cat([bank.counts for _, bank in banks])
    shared = [name for name in banks[0][1].attributes if all(name in bank.attributes for _, bank in banks)]
    return ImageBank(
        images=torch.cat([bank.images[:] for _, bank in banks]),
        offsets=torch.cat((counts.new_zeros(1), counts.cumsum(0))),
        class_names=tuple(f"{source}:{name}" for source, bank in banks for name in bank.class_names),
        dataset=dataset,
        split=split,
        polarity=banks[0][1].polarity,
        attributes={name: _attribute(name, banks) for name in shared},
        notes=tuple(dict.fromkeys(note for _, bank in banks for note in bank.notes)),
    )


def _attribute(name: str, banks: Sequence[tuple[str, ImageBank]]) -> Attribute:
    """An attribute of all classes; the values of two sources are never one, whatever they are called."""
    values: list[Tensor] = []
    places: dict[str, int] = {}
    for source, bank in banks:
        own = bank.attributes[name]
        here = torch.tensor([places.setdefault(f"{source}:{value}", len(places)) for value in own.names])
        values.append(torch.where(own.values < 0, own.values, here[own.values.clamp(min=0)]))
    return Attribute(torch.cat(values), tuple(places))
