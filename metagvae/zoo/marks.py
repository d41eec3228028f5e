"""Marks of training images that shipped encoders share: a file each, named by the encoders' cards."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from episodes import InputError


def shared_marks(name: str, where: str) -> list[str]:
    """`EncoderCard.trained_images` of a card that names a file of them instead of listing them.

    Args:
        name: of a text file of this package, a mark a line.
        where: the card, for messages.

    Raises:
        InputError: if there is no such file.
    """
    known = {path.stem: path for path in sorted(Path(str(files("metagvae") / "weights" / "marks")).glob("*.txt"))}
    if name not in known:
        raise InputError(
            f"{where}: card.trained_images must be a list of marks, or the name of a list that comes with the package "
            f"({', '.join(known)}); received {name[:100]!r}. Open the encoder with the version that wrote it."
        )
    return known[name].read_text(encoding="utf-8").split()
