"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path

from episodes.errors import InputError


def expanded(path: str | Path) -> Path:
    """The path with ``~`` and ``~name`` put in full.

    Raises:
        InputError: if there is no such user, or none whose home is known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        name = Path(path).parts[0]
        raise InputError(f"{path} cannot be found: nobody here is known as {name}; write the path in full.") from error
