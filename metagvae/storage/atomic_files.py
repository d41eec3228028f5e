"""Files and folders that a crash leaves whole, and what a killed write left."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

from episodes import InputError
from episodes.whole_files import ENDING, flush_names, write_beside

_SURROGATE = re.compile("[\ud800-\udfff]")


class PatientWriter:
    """A file for writers in C++, which may end the process where Python would raise.

    The first failure, a Ctrl-C among them, is kept and what follows is dropped; `finish` raises it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._failure: BaseException | None = None

    def write(self, data: bytes | memoryview) -> int:
        if self._failure is None:
            try:
                self._file.write(data)
            except BaseException as error:
                self._failure = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        pass

    def finish(self) -> None:
        if self._failure is not None:
            raise self._failure


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, and their names durable.

    Raises:
        InputError: if it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in missing:
            flush_names(path.parent)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder} ({error.strerror}); choose a place you may write to."
        ) from error


def check_empty(folder: Path) -> None:
    """Raises `InputError` unless a folder to be written is new or empty: what lies in it is somebody's work."""
    if folder.is_dir():
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; choose another folder.")
    elif folder.exists():
        raise InputError(f"{folder} is a file; choose a folder.")


def json_text(content: Any) -> str:
    """JSON with a line for each setting of a mapping and each record of a list, so that a table's rows are lines.

    A number that is not finite is written as null: JSON has no word for it. Bytes of a file's name that are not UTF-8
    are written as text, ``\\udce9``: no reader takes half of a surrogate pair.
    """

    def lines(value: Any, indent: str) -> str:
        if isinstance(value, dict) and value:
            inside = [f"{json.dumps(key)}: {lines(each, indent + ' ')}" for key, each in value.items()]
            brackets = "{}"
        elif isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
            inside, brackets = [json.dumps(each) for each in value], "[]"
        else:
            return json.dumps(value)
        body = ",\n".join(f"{indent} {each}" for each in inside)
        return f"{brackets[0]}\n{body}\n{indent}{brackets[1]}"

    # tuples as lists, every key as JSON spells it, and nothing for NaN and the infinities
    text = _SURROGATE.sub(lambda half: f"\\\\u{ord(half[0]):04x}", json.dumps(content, ensure_ascii=False))
    plain = json.loads(text, parse_constant=lambda _: None)
    return lines(plain, "") + "\n"


def write_json(path: Path, content: Any) -> None:
    write_beside(path, json_text(content).encode())


def check_links(folder: Path) -> None:
    """Raises `InputError` if a link anywhere in a folder leads out of it: what is written there would land elsewhere.

    The folder itself may be reached by one, which its user made; those inside may be a stranger's. The logs that wandb
    links to lie inside folders that it makes anew for each launch, and are not looked at.
    """
    top = folder.resolve()
    for place, folders, files in os.walk(top):
        if Path(place) == top / "wandb":
            folders.clear()
        for path in (Path(place, name) for name in (*folders, *files)):
            if path.is_symlink() and not _leads_inside(path, top):
                raise InputError(
                    f"{folder / path.relative_to(top)} is a link out of {folder}, where something is to be written. "
                    "Put what it stands for in its place, or remove it."
                )


def _leads_inside(link: Path, top: Path) -> bool:
    try:
        return link.resolve().is_relative_to(top)
    except (OSError, RuntimeError):  # a circle of links
        return False


def is_remnant(path: Path) -> bool:
    """Whether a file is what a write that was killed left beside its place."""
    return path.name.startswith(".") and path.name.endswith(ENDING)


def sweep(folder: Path) -> None:
    """Removes what writes that were killed left under ``folder``; nobody else may be writing there."""
    for path in folder.rglob(f".*{ENDING}"):
        path.unlink(missing_ok=True)
