"""One folder of pictures per class: the one reader of that layout, for training, checking and predicting alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from episodes.errors import InputError
from episodes.untrusted.archives import Source
from episodes.untrusted.picture_files import KINDS, find_pictures, left_aside

SPLIT_OF = {name: name for name in ("train", "validation", "test")} | {"val": "validation", "valid": "validation"}
TABLE = "splits.csv"


@dataclass(frozen=True)
class ClassFolders:
    """The class folders of a source.

    Attributes:
        files: the names of each class's pictures.
        split: the split of each class, where the class folders lie in folders named for splits; else empty.
        wrapper: the folder that holds the class folders, with ``/`` at its end; empty where the source itself does.
        table: the name of a table of splits beside the class folders, or beside what wraps them.
        notes: sentences on what was left aside.
    """

    files: dict[str, list[str]]
    split: dict[str, str] = field(default_factory=dict)
    wrapper: str = ""
    table: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def only_one(self) -> str | None:
        """A sentence if there is only one class; that is seldom what was meant."""
        if len(self.files) > 1:
            return None
        (name,) = self.files
        return f"there is only one class, {self.wrapper}{name}; every class needs a folder of its own beside it"


def class_folders(source: Source, split_folders: bool | None = None, one_split_per_class: bool = True) -> ClassFolders:
    """Finds the class folders of a folder or zip; sub-folders of a class belong to it.

    Folders that wrap all class folders are passed through: a zip often holds one that holds them all. Folders named
    train, validation (or val) and test that hold class folders are the classes' splits.

    Args:
        split_folders: whether to look for folders named for splits; None looks if there is no table of splits.
        one_split_per_class: refuse a class that is in two splits.

    Raises:
        InputError: if there are no class folders, folders of splits stand beside others, or a class is in two splits.
    """
    tables = _tables(source)
    names, notes = find_pictures(source, tables)
    pictures = [name.split("/") for name in names]
    if not pictures:
        others = len(source.names)
        raise InputError(
            f"{source.path} holds no pictures ({others} other files); put each class's pictures in a folder of its "
            f"own there. Read are {KINDS}.{_told(notes)}"
        )
    wrapper = _wrapper(pictures, any_name=split_folders is False)
    depth = len(wrapper)
    table = _table(source, tables, wrapper, notes)
    inside = [p for p in pictures if len(p) > depth + 1]
    loose = [p for p in pictures if len(p) <= depth + 1]
    if not inside:
        count = f"{len(loose)} pictures" if len(loose) > 1 else "one picture"
        raise InputError(
            f"{source.path} has {count} but no class folders; put each class's pictures in "
            f"a folder of its own, named for the class.{_told(notes)}"
        )
    if split_folders is None:
        split_folders = table is None and any(_is_split(p, depth) for p in inside)
    if split_folders:
        _check_split_folders(source, inside, depth)
        depth += 1
        loose += [p for p in inside if len(p) == depth + 1]
        inside = [p for p in inside if len(p) > depth + 1]
    files: dict[str, list[str]] = defaultdict(list)
    splits: dict[str, str] = {}
    for p in inside:
        files[p[depth]].append("/".join(p))
        if split_folders:
            split = SPLIT_OF[p[depth - 1].lower()]
            if splits.setdefault(p[depth], split) != split and one_split_per_class:
                raise InputError(
                    f"the class '{p[depth]}' of {source.path} is in both {splits[p[depth]]} and {split}; "
                    "few-shot splits hold different classes: move each class's folder into one."
                )
    if loose:
        notes.append(left_aside("pictures outside any class folder", ["/".join(p) for p in loose]))
    return ClassFolders(dict(files), splits, "".join(f"{part}/" for part in wrapper), table, tuple(notes))


def _told(notes: Sequence[str]) -> str:
    return "".join(f" ({note})" for note in notes)


def _tables(source: Source) -> list[str]:
    """Files named like the table of splits, in any capitals, by name."""
    return [name for name in source.names if name.rpartition("/")[2].lower() == TABLE]


def _table(source: Source, tables: list[str], wrapper: list[str], notes: list[str]) -> str | None:
    """The table of splits nearest to the class folders; a note on others."""
    for depth in range(len(wrapper), -1, -1):
        beside = [table for table in tables if table.split("/")[:-1] == wrapper[:depth]]
        if len(beside) > 1:
            raise InputError(f"{source.path} has the tables of splits {', '.join(beside)}; keep one.")
        if beside:
            break
    others = [table for table in tables if table not in beside]
    if others:
        notes.append(left_aside("tables of splits that are not the class folders' own", others))
    return beside[0] if beside else None


def _is_split(parts: list[str], depth: int) -> bool:
    return parts[depth].lower() in SPLIT_OF and len(parts) > depth + 2


def _check_split_folders(source: Source, inside: list[list[str]], depth: int) -> None:
    halls = {p[depth] for p in inside if _is_split(p, depth)}
    others = sorted({p[depth] for p in inside} - halls)
    if others or not halls:
        raise InputError(
            f"{source.path} should hold only folders train, validation and test with class folders in "
            f"them, but it holds {', '.join(others[:5])}{' and more' if len(others) > 5 else ''}. Move "
            "these into one of the three, or set data.options.split_by to 'fractions' to take every folder "
            "there as a class."
        )


def _wrapper(pictures: list[list[str]], any_name: bool) -> list[str]:
    """The folders that wrap the class folders: a zip often holds one that holds them all.

    One named for a split is not taken for a wrapper, unless ``any_name`` as the splits come from elsewhere.
    """
    wrapper: list[str] = []
    while True:
        depth = len(wrapper)
        tops = {p[depth] for p in pictures if len(p) > depth + 1}
        deeper = any(len(p) > depth + 2 for p in pictures)
        if len(tops) != 1 or not deeper or (min(tops).lower() in SPLIT_OF and not any_name):
            return wrapper
        wrapper += tops
