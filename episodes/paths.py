"""Paths as people write them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from episodes.errors import InputError


def expanded(path: str | Path) -> Path:
    """The path with ``~`` and ``~name`` put in full.

    Raises:
        InputError: if it is empty, if there is no such user, or none whose home is known.
    """
    if path == "":
        raise InputError("a path is empty (''); write the file or folder, or '.' for the current folder.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        name = Path(path).parts[0]
        raise InputError(f"{path} cannot be found: nobody here is known as {name}; write the path in full.") from error


def all_different(names: Iterable[str]) -> bool:
    """Whether each name stands for something else: a path is the same however it is spelt; other names are themselves.

    Raises:
        InputError: as `expanded`.
    """
    places = [_place(name) for name in names]
    return len(set(places)) == len(places)


def _place(name: str) -> str:
    path = expanded(name)
    try:
        return str(path.resolve()) if path.exists() else name
    except OSError:  # a name of an encoder that no file could have
        return name
