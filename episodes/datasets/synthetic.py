"""Synthetic: letters drawn from fonts and characters drawn from random motor programs; no drawing of a person."""

from __future__ import annotations

from dataclasses import dataclass

from episodes.bank import ImageBank
from episodes.datasets.base import DATASETS
from episodes.datasets.glyphs import Glyphs
from episodes.datasets.scribbles import Scribbles
from episodes.datasets.side_by_side import SideBySide, side_by_side


@DATASETS.register
@dataclass(frozen=True)
class Synthetic(SideBySide):
    """The letters of `glyphs` and the characters of `scribbles` beside each other, ink on black, grey, 28 x 28.

    For Lake's task with no background at all: no byte of Omniglot is read, or of any other data set. The splits are
    those of the two. Nothing is read from ``root``.

    With ``rotations`` ``classes`` only the scribbles are turned: many glyphs are others turned by a quarter.
    ``episode`` turns the classes of both.
    """

    name = "synthetic"
    default_size = 28
    reads_root = False
    licence = f"{Glyphs.licence}; {Scribbles.licence}"

    def joined(self, split: str, rotations: str) -> ImageBank:
        sources = [Glyphs(size=self.side), Scribbles(size=self.side, rotations=rotations)]
        return side_by_side([(source.name, source.load(split)) for source in sources], self.name, split)
