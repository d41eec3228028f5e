"""WordNet's data files (wndb(5WN)), read within bounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from episodes.errors import InputError
from episodes.untrusted.plain_files import read_text

MAX_BYTES = 64 * 2**20  # the largest, data.noun, has 16 million


@dataclass(frozen=True)
class Gloss:
    """A synset's definition and examples, and the number of the lexicographer's file that it stands in."""

    field: int
    text: str


def read_glosses(path: Path, fields: int) -> list[Gloss]:
    """The glosses of a data file, in its order; lines that begin with two spaces are its licence.

    Args:
        path: such as ``data.noun``.
        fields: how many lexicographers' files there are.

    Raises:
        InputError: if it cannot be read, or a line is no synset.
    """
    what = "a data file of WordNet 3, such as data.noun"
    found = []
    for number, line in enumerate(read_text(path, MAX_BYTES, what).splitlines(), 1):
        if line.startswith("  ") or not line:
            continue
        head, bar, text = line.partition("|")
        words = head.split(maxsplit=3)
        if not bar or len(words) < 4 or not (words[0].isdecimal() and words[1].isascii() and words[1].isdecimal()):
            raise InputError(
                f"line {number} of {path} is no synset: offset, lexicographer's file, kind and words, then | and the "
                f"gloss; received {line[:60]!r}. Give {what}."
            )
        if len(words[1]) > 2 or int(words[1]) >= fields:
            raise InputError(
                f"line {number} of {path} names the lexicographer's file {words[1][:20]}; there are {fields} of them, "
                "from 00 on."
            )
        found.append(Gloss(int(words[1]), text.strip()))
    return found
