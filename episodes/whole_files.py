"""Files that a crash leaves whole: written beside, flushed to the disk, renamed over."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from episodes.errors import InputError

OUT_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ENDING = ".part"  # of what a write that was killed leaves


def flush_names(folder: Path) -> None:
    """The names in a folder to the disk, where its system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # a system that opens no folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EACCES):  # a file system that flushes none
            raise
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes ``path``'s place once the block ends well; until then, and in a crash, the old one stays.

    A link at ``path`` gives way too, and what it leads to stays: links inside a folder may be a stranger's.

    Raises:
        InputError: if it cannot be written, or a device, a pipe or a folder is there; nothing is left beside.
    """
    check_replaceable(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=ENDING, dir=path.parent)
    except OSError as error:
        raise InputError(_cannot_write(path, error)) from error
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_mask())
        os.replace(beside, path)
        flush_names(path.parent)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(_cannot_write(path, error)) from error
        raise


def check_replaceable(path: Path) -> None:
    """Raises `InputError` if a device, a pipe or a folder is there, whose place no file may take."""
    kind = path.lstat().st_mode if os.path.lexists(path) else stat.S_IFREG
    if stat.S_ISDIR(kind):
        raise InputError(f"cannot write {path}: it is a folder; give the name of a file in it.")
    if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
        raise InputError(f"cannot write {path}: it is a device or a pipe, not a file; give a file's name.")


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _cannot_write(path: Path, error: OSError) -> str:
    if error.errno in OUT_OF_DISK:
        return (
            f"cannot write {path}: no room ({error.strerror}). The older file, if any, is intact; make room, then give "
            "the same command again (for a run, with --run.resume auto)."
        )
    return (
        f"cannot write {path} ({error.strerror}); the older file, if any, is intact. Choose a folder you may write to."
    )


def write_beside(path: Path, data: bytes) -> None:
    """Writes a file so that a crash leaves the old one or the new one, never a part.

    Raises:
        InputError: if it cannot be written.
    """
    with replacing(path) as file:
        file.write(data)
