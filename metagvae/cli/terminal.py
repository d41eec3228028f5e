"""Output to a terminal or a pipe: characters it cannot show are spelt in ASCII, and a closed reader ends quietly."""

from __future__ import annotations

import codecs
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Any

_OURS = [Path(__file__).parents[2] / name for name in ("metagvae", "episodes")]
_PLAIN = warnings.formatwarning
_SPELT = {"±": "+-", "–": "-", "—": "-", "−": "-", "×": "x", "…": "...", "→": "->", "≥": ">=", "≤": "<="}


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_SPELT.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters), error.end


codecs.register_error("metagvae.spelt", _spell)


def _warning(message: Warning | str, category: type[Warning], filename: str, *rest: Any, **options: Any) -> str:
    """A warning of this project as one sentence; another's as Python writes it."""
    if category is UserWarning and any(Path(filename).is_relative_to(folder) for folder in _OURS):
        return f"metagvae: {message}\n"
    return _PLAIN(message, category, filename, *rest, **options)


def prepare() -> None:
    """Lets no character end a command in an error: after an hour's measurement, ``±`` would. Warnings are sentences."""
    warnings.formatwarning = _warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="metagvae.spelt")


def flush() -> None:
    """Writes what was printed, here where a failure can still be told."""
    if sys.stdout is not None:
        sys.stdout.flush()


def abandon() -> None:
    """Sends what is still to be printed nowhere: the interpreter would try once more, and complain."""
    try:
        place = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # none, or of a test
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, place)
    os.close(nowhere)
