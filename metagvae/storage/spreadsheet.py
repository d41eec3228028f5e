"""Tables (csv) that a spreadsheet may open, of text that strangers wrote."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from episodes.whole_files import write_beside

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# what begins a formula, or is dropped before one; the wide forms are taken for the plain ones in some languages
_OPENERS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def cell(value: object) -> str:
    """A value as text that no spreadsheet takes for a formula, and that UTF-8 can hold.

    Text that begins like a formula gets an apostrophe in front. A plain number, such as the class ``-1``, is no
    formula and stays as it is.
    """
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    formula = text.startswith(_OPENERS) or text.lstrip().startswith(_OPENERS)
    return f"'{text}" if formula and not _NUMBER.fullmatch(text) else text


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a csv file in UTF-8, every value through `cell`, and every one quoted.

    Without quotes a value would end at ``;`` where that is the list separator, and a formula could begin behind it.

    Raises:
        InputError: if it cannot be written; the older file, if any, stays.
    """
    table = io.StringIO()
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row] for row in rows)
    write_beside(path, table.getvalue().encode("utf-8"))
