"""Synthetic: letters drawn from fonts and characters drawn from random motor programs; no drawing of a person."""

from __future__ import annotations

from dataclasses import dataclass

from episodes.bank import ImageBank
from episodes.datasets.base import DATASETS, SPLITS, Dataset
from episodes.datasets.glyphs import Glyphs
from episodes.datasets.scribbles import Scribbles
from episodes.datasets.side_by_side import side_by_side
from episodes.errors import InputError


@DATASETS.register
@dataclass(frozen=True)
class Synthetic(Dataset):
    """The letters of `glyphs` and the characters of `scribbles` beside each other, ink on black, grey, 28 x 28.

    For Lake's task with no background at all: no byte of Omniglot is read, or of any other data set. The splits are
    those of the two. Nothing is read from ``root``.

    With ``rotations`` ``classes`` only the scribbles are turned: many glyphs are others turned by a quarter.
    """

    name = "synthetic"
    default_size = 28
    licence = f"{Glyphs.licence}; {Scribbles.licence}"

    def load(self, split: str) -> ImageBank:
        return self._loaded(split, "classes" if self.rotations == "classes" else "none")

    def load_split(self, split: str) -> ImageBank:
        return self._loaded(split, "none")

    def _loaded(self, split: str, rotations: str) -> ImageBank:
        if split not in SPLITS:
            raise InputError(f"unknown split {split!r} of {self.name}; allowed: {', '.join(SPLITS)}.")
        sources = [Glyphs(size=self.side), Scribbles(size=self.side, rotations=rotations)]
        return side_by_side([(source.name, source.load(split)) for source in sources], self.name, split)
