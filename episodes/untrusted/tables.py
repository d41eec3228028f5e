"""Tables of text (csv) that a stranger may have written."""

from __future__ import annotations

import csv
import io
import stat
from collections.abc import Iterator
from pathlib import Path

from episodes.errors import InputError

MAX_TABLE_BYTES = 16 * 2**20


def read_table(path: Path, columns: str, where: str = "") -> str:
    """The text of a csv file.

    Args:
        columns: those it should have, for the error.
        where: how the error names the file; by its path if left out.

    Raises:
        InputError: if it cannot be read, is no regular file, is larger than `MAX_TABLE_BYTES`, or is not UTF-8.
    """
    where = where or str(path)
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_TABLE_BYTES:  # a pipe would be waited on for ever
            raise InputError(
                f"{where} is no regular file of at most {MAX_TABLE_BYTES:,} bytes; give a UTF-8 file with the "
                f"columns {columns}."
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{where} cannot be read as text ({error}); give a UTF-8 file with the columns {columns}."
        ) from error


def table_rows(
    text: str, where: str, columns: tuple[str, ...], delimiter: str = ","
) -> Iterator[tuple[int, list[str]]]:
    """The line number and the values of ``columns``, row by row; a value that is not there is empty.

    Raises:
        InputError: if a column is missing, or the text is no table.
    """
    rows = csv.DictReader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    try:
        if not set(columns) <= set(rows.fieldnames or ()):
            first = text.partition("\n")[0]
            raise InputError(f"{where} needs the columns {','.join(columns)}; its first line is {first[:60]!r}.")
        for row in rows:
            yield rows.line_num, [row[column] or "" for column in columns]
    except csv.Error as error:
        raise InputError(
            f"{where}, line {rows.line_num + 1}, is not a line of a table ({error}); the columns {','.join(columns)} "
            "are needed."
        ) from error
