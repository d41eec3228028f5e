"""Tables of text (csv) as people make them, which a stranger may have written."""

from __future__ import annotations

import codecs
import csv
import io
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from episodes.errors import InputError
from episodes.untrusted.faults import ReadFault

MAX_TABLE_BYTES = 16 * 2**20
_DELIMITERS = (",", ";", "\t", "|")
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",  # before UTF-16's, which begin them
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def read_table(path: Path, columns: str, where: str = "") -> str:
    """The text of a csv file.

    Args:
        columns: those it should have, for the error.
        where: how the error names the file; by its path if left out.

    Raises:
        InputError: if it cannot be read, is no regular file, is larger than `MAX_TABLE_BYTES`, or is no text.
    """
    where = where or str(path)
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_TABLE_BYTES:  # a pipe would be waited on for ever
            raise InputError(
                f"{where} is no regular file of at most {MAX_TABLE_BYTES:,} bytes; give a UTF-8 file with the "
                f"columns {columns}."
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{where} cannot be read ({error}); give a UTF-8 file with the columns {columns}.") from error
    except OSError as error:
        raise ReadFault(where, error) from error
    return decode_table(data, columns, where)


def decode_table(data: bytes, columns: str, where: str) -> str:
    """The text of a csv file's bytes: UTF-8, or UTF-16 as spreadsheets write it, with or without a byte order mark.

    Raises:
        InputError: if it is larger than `MAX_TABLE_BYTES`, or neither.
    """
    if len(data) > MAX_TABLE_BYTES:
        raise InputError(f"{where} has more than {MAX_TABLE_BYTES:,} bytes; give a table of the columns {columns}.")
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data[:2]:  # a heading begins with a plain letter
        encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where} cannot be read as text ({error}); give a UTF-8 file with the columns {columns}. A spreadsheet "
            "program writes one as 'CSV UTF-8'."
        ) from error


def table_rows(text: str, where: str, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """The line number and the values of ``columns``, row by row; a value that is not there is empty.

    The columns may stand in any order, beside others, in any capitals, and be parted by commas, semicolons, tabs or
    bars. Blanks around headings and values are taken off; a row without any value is passed over.

    Raises:
        InputError: if a column is missing or there twice, or the text is no table.
    """
    rows = table_lines(text)
    try:
        headings = headings_of(rows)
        missing = [column for column in columns if headings.count(column) != 1]
        if missing:
            twice = missing[0] in headings
            raise InputError(
                f"{where} needs the columns {','.join(columns)}{', each once' if twice else ''}; its first line is "
                f"{_first(text)[:60]!r}."
            )
        places = [headings.index(column) for column in columns]
        for row in rows:
            values = [row[place].strip() if place < len(row) else "" for place in places]
            if any(map(str.strip, row)):
                yield rows.line_num, values
    except csv.Error as error:
        raise InputError(
            f"{where}, line {rows.line_num + 1}, is not a line of a table ({error}); the columns {','.join(columns)} "
            "are needed."
        ) from error


def table_lines(text: str) -> Any:
    """A reader of a table's lines, headings first, parted as the first line is; it raises `csv.Error`."""
    lines = io.StringIO(text, newline="")
    if text.lstrip()[:4].lower() == "sep=":
        lines.readline()
    delimiter = max(_DELIMITERS, key=_first(text).count)
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != "\t")


def headings_of(rows: Iterator[list[str]]) -> list[str]:
    """The first line that holds anything, in small letters."""
    return [heading.strip().lower() for heading in next((row for row in rows if any(map(str.strip, row))), [])]


def _first(text: str) -> str:
    """The first line, after a note of Excel's to itself."""
    first = text.splitlines()[0] if text[:1].strip() else text.lstrip().partition("\n")[0]
    if first.strip().lower().startswith("sep="):
        return text.splitlines()[1] if len(text.splitlines()) > 1 else ""
    return first


class Names:
    """Names looked up as people type them: accents composed or not, blanks around them.

    Args:
        known: the names there are; one that is given exactly is always found.
    """

    def __init__(self, known: Collection[str]) -> None:
        self._known = set(known)
        self._alike: dict[str, list[str]] = defaultdict(list)
        self._by_letters: dict[str, list[str]] = defaultdict(list)
        for name in sorted(known):
            self._alike[_typed(name)].append(name)
            self._by_letters[_typed(name).casefold()].append(name)

    def find(self, given: str) -> str | None:
        """The name meant; None if there is none, or several."""
        alike = self._alike.get(_typed(given), [])
        return given if given in self._known else alike[0] if len(alike) == 1 else None

    def hint(self, given: str) -> str:
        """The likely meaning of a name that is not found, or an example of those there are."""
        near = self._alike.get(_typed(given)) or self._by_letters.get(_typed(given).casefold())
        if near and len(near) > 1:
            return f"there are {', '.join(map(ascii, near[:3]))}, which differ only in how they are written"
        if near:
            return f"did you mean {near[0]!r}, in other capitals?"
        return f"there are {len(self._known)}, such as {min(self._known)!r}"


def _typed(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())
