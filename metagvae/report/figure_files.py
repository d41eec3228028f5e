"""Figures as files, whole or not at all, and names as they are in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from episodes.errors import printable
from episodes.whole_files import write_beside
from metagvae.storage.atomic_files import make_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plain(name: object) -> str:
    """A name as matplotlib shows it unchanged: dollar signs in it would begin a formula, and some are no text."""
    return printable(name).replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> None:
    """Draws a figure into a file of the kind that its name ends in, its folder made if missing.

    Raises:
        InputError: if it cannot be written; the older file, if any, stays.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:] or "png")
    make_folder(path.parent)
    write_beside(path, buffer.getvalue())
