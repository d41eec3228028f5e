"""What a command prints, and where it may write."""

from __future__ import annotations

import os
from pathlib import Path

from episodes.errors import InputError, printable


def say(text: object, flush: bool = False) -> None:
    """Prints what a command found; names that strangers gave their files or weights cannot steer the terminal."""
    print(printable(text), flush=flush)


def check_writable(*paths: str | None) -> None:
    """Makes the outputs' folders, and raises before long work if one cannot be written to."""
    for path in paths:
        if path is None:
            continue
        folder = Path(path).expanduser().absolute().parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {path}: {folder} cannot be made ({error.strerror}).") from error
        if not os.access(folder, os.W_OK):
            raise InputError(f"cannot write {path}: you may not write to {folder}. Choose another place.")


def check_figure(path: str | None) -> None:
    """Raises before long work if a figure's file has an ending that none is drawn to, or cannot be written."""
    if path and Path(path).suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--figure must end in .png, .svg or .pdf; received {path}.")
    check_writable(path)
