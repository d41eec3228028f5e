"""Ready feature vectors and their labels out of a file that a stranger may have written: an ``.npz`` or a table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from episodes.errors import InputError
from episodes.untrusted.arrays import read_npz
from episodes.untrusted.tables import headings_of, read_table, table_lines

LABEL = "label"
MAX_COLUMNS = 65_537


def read_vectors(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads float32 vectors ``[n, D]`` and labels ``[n]``: whole numbers or text.

    Args:
        path: an ``.npz`` with the arrays ``vectors`` and ``labels``, or a table (csv) with a column ``label``, all of
            whose other columns are numbers.

    Raises:
        InputError: if the file is neither, is damaged, or holds anything but finite numbers and their labels.
    """
    if path.suffix.lower() == ".npz":
        vectors, labels = read_npz(path, "vectors", "labels")
    else:
        vectors, labels = _of_table(path)
    if vectors.ndim != 2 or 0 in vectors.shape or vectors.dtype.kind not in "fiub":
        raise InputError(
            f"{path} holds {list(vectors.shape)} {vectors.dtype} as vectors; expected [n, D] real numbers, a row each."
        )
    if labels.shape != vectors.shape[:1] or labels.dtype.kind not in "iubUS":
        raise InputError(
            f"{path} holds {list(labels.shape)} {labels.dtype} as labels; expected {len(vectors)} whole numbers or "
            "words, one for each vector."
        )
    with np.errstate(over="ignore"):
        rows = vectors.astype(np.float32)
    if not np.isfinite(rows).all():
        at = int(np.argmin(np.isfinite(rows).all(1)))
        raise InputError(
            f"{path}, vector {at}, holds NaN, infinity or a number that float32 cannot hold; leave it out."
        )
    if path.suffix.lower() == ".npz":
        _refuse_row_numbers(path, vectors.astype(np.float64), [f"vectors[:, {at}]" for at in range(rows.shape[1])])
    return rows, labels


def _refuse_row_numbers(path: Path, table: np.ndarray, names: list[str]) -> None:
    """Raises `InputError` for a column without a name, as pandas writes an index, or that counts the rows by one."""
    counted = np.flatnonzero((np.diff(table, axis=0) == 1).all(0)).tolist() if len(table) > 2 else []
    for column in [*counted, *(number for number, name in enumerate(names) if not name)]:
        what = f"called {names[column][:100]!r}" if names[column] else "without a heading"
        raise InputError(
            f"{path} has a column {what}, like the numbers of rows, which are no feature: they would tell classes by "
            "their order. Leave it out (pandas: to_csv(..., index=False))."
        )


def _of_table(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = table_lines(read_table(path, f"{LABEL} and one for each number"))
    labels, numbers = [], []
    try:
        names = headings_of(rows)
        if names.count(LABEL) != 1 or not 2 <= len(names) <= MAX_COLUMNS:
            raise InputError(
                f"{path} needs one column {LABEL!r} and at most {MAX_COLUMNS - 1:,} of numbers; its {len(names):,} "
                f"columns are {', '.join(names[:5])[:100] or 'none'}."
            )
        at = names.index(LABEL)
        for row in rows:
            if any(map(str.strip, row)):
                labels.append(row.pop(at).strip())
                numbers.append(np.array(row, dtype=np.float64))
                if len(row) != len(names) - 1:
                    raise ValueError(f"{len(row) + 1} values for {len(names)} columns")
    except (csv.Error, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        what = str(error)[:200]
        raise InputError(f"{path}, line {rows.line_num}, is no row of numbers and a label ({what}).") from error
    table = np.array(numbers).reshape(len(numbers), len(names) - 1)
    _refuse_row_numbers(path, table, [name.strip() for name in names if name != LABEL])
    return table, np.array(labels, dtype=np.str_)
