"""A person's own pictures: one folder per class, in a folder or a zip file."""

from __future__ import annotations

import hashlib
import logging
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from episodes.bank import ImageBank
from episodes.datasets.base import DATASETS, SPLITS, Dataset
from episodes.datasets.cache import cached_classes
from episodes.datasets.cache_entry import Decoding
from episodes.errors import InputError, printable
from episodes.paths import expanded
from episodes.untrusted.archives import Source
from episodes.untrusted.class_folders import SPLIT_OF, TABLE, class_folders
from episodes.untrusted.faults import ReadFault
from episodes.untrusted.picture_files import left_aside
from episodes.untrusted.sources import open_picture, to_tensor
from episodes.untrusted.tables import Names, decode_table, read_table, table_rows

_log = logging.getLogger(__name__)
_WAYS = ("auto", "folders", "csv", "fractions")
_NAMED = 10  # broken files named one by one in the notes


def class_counts(classes: int, fractions: Sequence[float]) -> tuple[int, int, int]:
    """How many of the classes go to train, validation and test.

    Validation and test are rounded up, as an episode needs several classes: 3 at least from 9 classes on, 2
    from 6 on, 1 below, unless their fraction is 0. Training gets the rest: 12 classes become 6 / 3 / 3, 20
    become 12 / 4 / 4.
    """
    least = 3 if classes >= 9 else 2 if classes >= 6 else 1
    _, validation, test = (max(least, math.ceil(share * classes - 1e-9)) if share > 0 else 0 for share in fractions)
    # in the smallest sets training comes first, then test; nothing takes the least that another needs
    rest = max(0, classes - least) if fractions[0] > 0 else classes
    if test:
        test = max(min(test, rest - (least if validation else 0)), min(least, rest))
    validation = min(validation, rest - test)
    left = classes - validation - test
    if fractions[0] > 0:
        return left, validation, test
    return (0, validation, test + left) if test else (0, validation + left, 0)


def assign_classes(names: Sequence[str], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """The split of each class, drawn by hashing the seed with the name: the same in any order."""

    def rank(name: str) -> bytes:
        # one disk writes an accented letter as one character, another as two
        return hashlib.sha256(f"{seed}\0{unicodedata.normalize('NFC', name)}".encode()).digest()

    _, validation, test = class_counts(len(names), fractions)
    order = sorted(names, key=rank)
    return {
        name: "test" if i < test else "validation" if i < test + validation else "train" for i, name in enumerate(order)
    }


@DATASETS.register
@dataclass(frozen=True)
class Folder(Dataset):
    """Pictures of any size and common format, one folder per class; sub-folders of a class belong to it.

    The classes are split into train, validation and test, so that few-shot error is measured on classes never
    seen. In this order, by ``split_by = "auto"``: by a table, ``splits_csv`` or a file ``splits.csv``
    beside the class folders (columns ``class,split``); by folders ``train``, ``validation`` (or ``val``) and
    ``test`` that hold the class folders; else by ``fractions`` of the classes.

    Args:
        root: the folder, or a zip file of it.
        channels: 3 for RGB, 1 for grey.
        invert: turn dark strokes on white paper into bright strokes on black (polarity ``ink``).
        ink: the pictures are bright strokes on black as they are; their polarity is ``ink`` too.
        split_by: ``auto``, ``csv``, ``folders`` or ``fractions``.
        splits_csv: a table of the classes' splits, if not ``splits.csv`` beside the class folders.
        fractions: shares of train, validation and test among the classes; see `class_counts`.
        split_seed: another seed, another draw of the classes.
    """

    name = "folder"
    default_size = 84
    licence = "the pictures' own"

    channels: int = 3  # type: ignore[misc]  # fixed for the other data sets, an option here
    invert: bool = False
    split_by: str = "auto"
    splits_csv: str | None = None
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    split_seed: int = 0
    ink: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3):
            raise InputError(f"data.options.channels must be 1 (grey) or 3 (RGB); received {self.channels!r}.")
        if self.split_by not in _WAYS:
            raise InputError(f"data.options.split_by must be one of {', '.join(_WAYS)}; received {self.split_by!r}.")
        if self.invert and self.ink:
            raise InputError(
                "data.options: invert makes bright strokes on black, ink says that they are; set one of them."
            )
        shares = self.fractions
        if (
            not isinstance(shares, list | tuple)
            or len(shares) != 3
            or not all(isinstance(x, int | float) and 0 <= x <= 1 for x in shares)
            or abs(sum(shares) - 1) > 1e-6
        ):
            raise InputError(
                "data.options.fractions must be three numbers from 0 to 1 that add up to 1, for train, validation "
                f"and test, such as [0.6, 0.2, 0.2]; received {shares!r}."
            )
        object.__setattr__(self, "fractions", tuple(float(x) for x in shares))  # YAML gives a list

    def load_split(self, split: str) -> ImageBank:
        """The bank of a split. Pictures that cannot be read are left out, logged, and named in its notes.

        Raises:
            InputError: if there are no class folders, or the split gets no class.
        """
        path = self._path()
        table = self._table()
        source = Source(path)
        key = {
            "dataset": self.name,
            "title": _title(path),
            "split": split,
            "size": self.side,
            "channels": self.channels,
            "invert": self.invert,
            "split_by": self.split_by,
            "table": table,
            "fractions": self.fractions,
            "split_seed": self.split_seed,
            "source": source.fingerprint,
            **({"ink": True} if self.ink else {}),
        }
        try:
            bank = cached_classes(key, lambda: self._decode(source, table, split))
        finally:
            source.close()
        for note in bank.notes:
            _log.warning("%s", printable(f"{source.path}, {split}: {note}", lines=False))
        return bank

    def sizes(self, split: str) -> list[int]:
        """Picture files per class of a split; broken ones count, being found only on decoding."""
        source = Source(self._path())
        try:
            classes, splits, _ = self._classes(source, self._table())
        finally:
            source.close()
        return [len(files) for name, files in classes.items() if splits.get(name) == split]

    def _path(self) -> Path:
        if self.root is None:
            raise InputError(
                "the data set 'folder' needs to know your pictures: set --data.root to a folder, or a zip "
                "file, that holds one folder per class."
            )
        path = expanded(self.root)
        if not path.exists():
            raise InputError(
                f"data.root is {self.root}, which does not exist; give a folder, or a zip file, that holds "
                "one folder of pictures per class."
            )
        return path

    def _table(self) -> str | None:
        if self.splits_csv is None:
            return None
        path = expanded(self.splits_csv)
        return read_table(path, "class,split", f"data.options.splits_csv is {path}, which")

    def _decode(self, source: Source, table: str | None, split: str) -> Decoding:
        classes, splits, notes = self._classes(source, table)
        wanted = sorted(name for name in classes if splits.get(name) == split)
        if not wanted:
            held = ", ".join(f"{s} {sum(splits.get(c) == s for c in classes)}" for s in SPLITS)
            raise InputError(
                f"the split '{split}' of {source.path} has no classes (of {len(classes)}: {held}). Add class "
                "folders, or change data.options.fractions or the table or folders that split them."
            )
        found, broken = 0, []
        for name in wanted:
            pictures = []
            for file in classes[name]:
                try:
                    picture = open_picture(source.read(file), file)
                    pictures.append(to_tensor(picture, self.side, self.channels, self.invert))
                except ReadFault:
                    raise
                except InputError as error:
                    broken.append(str(error))
            if pictures:
                found += 1
                yield name, torch.stack(pictures)
            else:
                notes.append(f"the class '{name}' was left out: none of its pictures can be read")
        if broken:
            more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
            notes.append(f"{len(broken)} unreadable pictures skipped: {' '.join(broken[:_NAMED])}{more}")
        if not found:
            raise InputError(f"no picture of the split '{split}' of {source.path} can be read: {broken[0]}")
        return {
            "dataset": f"{self.name}-{_title(source.path)}",
            "split": split,
            "polarity": "ink" if self.invert or self.ink else "light",
            "notes": tuple(notes),
        }

    def _classes(self, source: Source, table: str | None) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
        """The files of each class, the split of each class, and what was left aside."""
        elsewhere = table is not None or self.split_by in ("csv", "fractions")
        by_folders = True if self.split_by == "folders" else False if elsewhere else None
        found = class_folders(source, by_folders)
        notes = list(found.notes)
        if found.only_one is not None:
            notes.append(found.only_one)
        where = self.splits_csv
        if table is None and self.split_by in ("auto", "csv"):
            if found.table is not None:
                where = f"{found.table} in {source.path}"
                table = decode_table(source.read(found.table), "class,split", where)
            elif self.split_by == "csv":
                raise InputError(
                    f"data.options.split_by is 'csv', but {source.path} has no {found.wrapper}{TABLE} and "
                    "data.options.splits_csv is not set; give a table with the columns class,split."
                )
        if table is not None and self.split_by in ("auto", "csv"):
            splits = _read_table(table, where or TABLE, set(found.files))
            unlisted = sorted(set(found.files) - set(splits))
            if unlisted:
                notes.append(left_aside("classes that are not in the table", unlisted))
            return found.files, splits, notes
        return found.files, found.split or assign_classes(sorted(found.files), self.fractions, self.split_seed), notes


def _title(path: Path) -> str:
    """The name of a folder or zip, as one line of text that can be written down."""
    return printable(path.resolve().stem, lines=False)


def _read_table(text: str, where: str, known: set[str]) -> dict[str, str]:
    """The split of each class listed."""
    names = Names(known)
    splits: dict[str, str] = {}
    for line, (given, split_given) in table_rows(text, where, ("class", "split")):
        split = SPLIT_OF.get(split_given.lower())
        if split is None:
            raise InputError(
                f"{where}, line {line}: unknown split {split_given[:100]!r}; allowed: train, validation, test."
            )
        name = names.find(given)
        if name is None:
            raise InputError(f"{where}, line {line}: there is no class folder {given[:100]!r}; {names.hint(given)}.")
        if splits.setdefault(name, split) != split:
            raise InputError(
                f"{where}, line {line}: the class {name!r} is in both {splits[name]} and {split}; "
                "few-shot splits hold different classes."
            )
    return splits
