"""Omniglot's drawings beside the strokes of the pen that made them, for its five small alphabets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import torch
from torch import Tensor

from episodes.bank import ImageBank
from episodes.datasets.omniglot import Omniglot
from episodes.errors import InputError
from episodes.strokes import direction_maps, read_strokes
from episodes.untrusted.archives import Source

ARCHIVE = "strokes_background_small1"
_FILE = re.compile(r"\d+_(\d+)\.txt")


@dataclass(frozen=True)
class StrokePairs:
    """Drawings as images and as maps of the pen's direction, row by row of the same drawing.

    Attributes:
        images: float32 ``[M, 1, size, size]`` in [0, 1], ink bright.
        maps: float32 ``[M, bins, size, size]`` in [0, 1], of `episodes.strokes.direction_maps`.
        characters: int64 ``[M]``, number of the character.
        drawers: int64 ``[M]``, number of the drawer, 0 to 19.
        names: of the characters.
    """

    images: Tensor
    maps: Tensor
    characters: Tensor
    drawers: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def stroke_pairs(root: str | None = None, size: int = 28, bins: int = 8) -> StrokePairs:
    """The 2,720 drawings of Omniglot's five small background alphabets, as images and as pen strokes.

    Args:
        root: the folder of Omniglot's files, with ``strokes_background_small1.zip`` (or the folder in it) among them;
            None looks where the data set omniglot is looked for.

    Raises:
        InputError: if they are not there, or drawings lack strokes.
    """
    dataset = Omniglot(root=root, size=size, splits="lake-minimal")
    folder = dataset.find_root(f"{ARCHIVE}.zip", ARCHIVE)
    archive = folder / f"{ARCHIVE}.zip"
    source = Source(archive if archive.exists() else folder / ARCHIVE)
    try:
        return _paired(dataset.load("train"), source, bins)
    finally:
        source.close()


def _paired(bank: ImageBank, source: Source, bins: int) -> StrokePairs:
    """The strokes of a source, in the order of a bank's images."""
    found: dict[tuple[str, int], str] = {}
    for name in source.names:
        path = PurePosixPath(name)
        matched = _FILE.fullmatch(path.name)
        if matched and len(path.parts) >= 3 and "__MACOSX" not in path.parts:
            found["/".join(path.parts[-3:-1]), int(matched[1]) - 1] = name
    size = bank.image_shape[-1]
    maps, characters, drawers = [], [], []
    for number, character in enumerate(bank.class_names):
        for drawer in range(int(bank.counts[number])):
            file = found.get((character, drawer))
            if file is None:
                raise InputError(
                    f"{source.path} has no strokes of drawing {drawer + 1} of {character}; get the whole archive "
                    f"{ARCHIVE}.zip of brendenlake/omniglot."
                )
            maps.append(direction_maps(read_strokes(source.read(file), f"{file} in {source.path}"), size, bins))
            characters.append(number)
            drawers.append(drawer)
    return StrokePairs(
        bank.gather(torch.arange(len(bank))).float() / 255,
        torch.stack(maps),
        torch.tensor(characters),
        torch.tensor(drawers),
        tuple(bank.class_names),
    )
