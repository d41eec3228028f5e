"""Printed lines, and where a command may write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from episodes.errors import InputError, printable
from episodes.paths import expanded
from episodes.whole_files import check_replaceable

# of a table of predictions, quoted or, from earlier versions, not; of a file of measurements
_HEADS = (
    b'"file","prediction","probability","novelty"',
    b"file,prediction,probability,novelty",
    b'{\n "provenance"',
    b'{\n "groups"',
)
_PAGE = b'<meta name="generator" content="metagvae">'


def say(text: object, flush: bool = False) -> None:
    """Prints what a command found; names that strangers gave their files or weights cannot steer the terminal."""
    print(printable(text), flush=flush)


def check_writable(*paths: str | None, inputs: Iterable[str | Path | None] = ()) -> None:
    """Makes the outputs' folders, and raises before long work if one cannot be written to.

    Args:
        inputs: what the command reads, names that are no paths among it. An output that is one of them, or would
            replace a file inside one of them, is refused; what an earlier command wrote there may be replaced.
    """
    given = [expanded(path) for path in paths if path is not None]
    sources = [str(source) for source in inputs if source is not None]
    for source in sources:
        expanded(source)  # an empty one would mean the current folder
    for number, path in enumerate(given):
        check_folder_of(path)
        check_replaceable(path)
        if any(_same(path, other) for other in given[:number]):
            raise InputError(f"two outputs are to be written to {path}; give each a file of its own.")
        for source in sources:
            for part in (source, *source.split("+")):  # A+B are two runs
                _check_beside(path, Path(os.path.expanduser(part)))
        if path.is_symlink():
            raise InputError(
                f"cannot write {path}: it is a link, whose place a file would take. Give the name of what it leads to, "
                f"{path.resolve()}, or remove the link."
            )


def check_link(link: str | None, *outputs: str | None) -> None:
    """Makes a link's folder, and raises before long work if no link can be made there.

    Args:
        outputs: files that the command writes too.
    """
    if link is None:
        return
    place = expanded(link)
    if os.path.lexists(place) and not place.is_symlink():
        raise InputError(f"--link {link}: something else than a link is there; choose another place.")
    if any(_same(place, expanded(output)) for output in outputs if output is not None):
        raise InputError(f"--link {link} is one of the files to be written too; choose another place.")
    check_folder_of(place)


def make_link(link: str, target: str) -> None:
    """Makes a link, relative so that both can be moved together, or points the one that is there to another target."""
    place = expanded(link)
    way = os.path.relpath(expanded(target).resolve(), place.parent.resolve())  # from where the link will really lie
    beside = place.with_name(f".{place.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(way)
    os.replace(beside, place)


def check_folder_of(path: Path) -> None:
    """Makes the folder of an output, and raises `InputError` if it cannot be made or written to."""
    folder = path.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {folder} cannot be made ({error.strerror}).") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: you may not write to {folder}. Choose another place.")


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are one file, by other links too."""
    if one.exists() and other.exists():
        return os.path.samefile(one, other)
    return one.resolve() == other.resolve()


def _check_beside(path: Path, source: Path) -> None:
    try:
        if not source.exists():
            return
    except OSError:  # a name of an encoder that no file could have
        return
    if _same(path, source):
        raise InputError(f"cannot write {path}: it is what is to be read, and would be lost. Choose another file.")
    if source.is_dir() and path.exists() and source.resolve() in path.resolve().parents and not _written_before(path):
        raise InputError(
            f"cannot write {path}: it is there already, inside {source}, which is to be read. Choose another file."
        )


def _written_before(path: Path) -> bool:
    """Whether a file begins as the tables, measurements and pages of this package do."""
    with path.open("rb") as file:
        head = file.read(1024)
    return head.startswith(_HEADS) or _PAGE in head


def check_figure(path: str | None) -> None:
    """Raises before long work if a figure's file has an ending that none is drawn to."""
    if path and Path(path).suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--figure must end in .png, .svg or .pdf; received {path}.")
