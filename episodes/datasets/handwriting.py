"""Handwriting: all that this package can read of handwriting at large, Omniglot's characters and the glyphs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from episodes.bank import ImageBank
from episodes.datasets.base import DATASETS, SPLITS, Dataset
from episodes.datasets.glyphs import Glyphs
from episodes.datasets.omniglot import Omniglot
from episodes.datasets.side_by_side import SideBySide, side_by_side
from episodes.errors import InputError

SPLITTINGS = ("all", "vinyals")


@DATASETS.register
@dataclass(frozen=True)
class Handwriting(SideBySide):
    """Omniglot's characters and the letters of `glyphs` beside each other, ink on black, grey, 28 x 28.

    For an encoder that is to meet other people's handwriting, not for a benchmark: by default its training split is all
    fifty alphabets of Omniglot and all fifteen scripts of glyphs. A class is named by the data set that it comes from,
    ``omniglot:Greek/character01``, so that an encoder trained here is refused on Omniglot and on glyphs.

    A class has the attribute ``script``, of Omniglot's its alphabet.

    With ``rotations`` ``classes`` only Omniglot's characters are turned: many glyphs are others turned by a quarter.
    ``episode`` turns the classes of both.

    Args:
        root: Omniglot's folder.
        splits: ``all`` (the training split holds everything, the others nothing) or ``vinyals`` (Omniglot's and the
            glyphs' own three splits, to choose a recipe with).
    """

    name = "handwriting"
    default_size = 28
    licence = f"{Omniglot.licence}; {Glyphs.licence}"

    splits: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.splits not in SPLITTINGS:
            raise InputError(f"handwriting's splits must be one of {', '.join(SPLITTINGS)}; received {self.splits!r}.")

    @property
    def caution(self) -> str:
        whole = "every class of Omniglot and of the glyphs, not for Omniglot's benchmark"
        return whole if self.splits == "all" else ""

    def joined(self, split: str, rotations: str) -> ImageBank:
        if self.splits == "all" and split != "train":
            raise InputError(
                f"handwriting's splits 'all' train on every class and leave none for {split}; set validation.every 0, "
                "or choose splits 'vinyals'."
            )
        sources: list[Dataset] = [Omniglot(self.root, self.side, rotations), Glyphs(size=self.side)]
        parts = SPLITS if self.splits == "all" else (split,)
        banks = [(source.name, _with_script(source.load(part))) for source in sources for part in parts]
        return side_by_side(banks, f"{self.name}-{self.splits}", split)


def _with_script(bank: ImageBank) -> ImageBank:
    """A bank whose classes have a script: Omniglot calls it an alphabet."""
    attributes = {("script" if name == "alphabet" else name): values for name, values in bank.attributes.items()}
    return replace(bank, attributes=attributes)
