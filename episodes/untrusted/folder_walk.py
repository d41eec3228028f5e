"""The files under a folder that a stranger may have made: links, loops, and what may not be read."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from episodes.errors import InputError
from episodes.untrusted.faults import ReadFault
from episodes.untrusted.picture_files import left_aside

MAX_FILES = 1_000_000
MAX_LINKED = 100_000  # files and folders that links bring in
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_SYSTEM = ("/proc", "/sys")  # whose files never end, or wait for ever

_CLOSED_FOLDERS, _CLOSED_FILES = "folders that may not be read", "files that may not be read"
_LOOPS, _DANGLING = "links to a folder that holds the link", "links that lead nowhere"
_INTO_SYSTEM, _NO_FILES, _ALIKE = "links into the system", "things that are no files", "files of one name"


@dataclass
class FolderFiles:
    """Files on disk.

    Attributes:
        files: by name with ``/``, the path on disk and a stamp of its state (size, times, inode).
        aside: sentences on what was left aside, and on folders that are there twice.
    """

    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of every name and its state.

        The inode and the time of its last change tell two files that changed places, whatever their sizes and dates.
        """
        digest = hashlib.sha256()
        for name in sorted(self.files):
            digest.update(f"{name}\0{self.files[name][1]}\n".encode())
        digest.update("\0".join(self.aside).encode())
        return digest.hexdigest()


def one_file(path: Path) -> FolderFiles:
    """A file, as if it lay in a folder without others."""
    return FolderFiles({_text(path.name): (str(path), _state(path.stat()))})


def folder_files(root: Path) -> FolderFiles:
    """Files and folders under ``root``.

    Links to files and to folders are followed, as people do link their pictures in, each under the link's own name;
    never to a folder that holds the link, such as ``/``, and not to more than `MAX_LINKED` things. Hidden files are
    passed over. A name that is not UTF-8 is shown with its bytes as ``\\xe9``.

    Raises:
        InputError: if there is more than may be read.
        ReadFault: if the disk fails.
    """
    return _Walk(root).found


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _state(info: os.stat_result) -> str:
    return f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns} {info.st_ino}"


class _Walk:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.found = FolderFiles()
        self._left: dict[str, list[str]] = defaultdict(list)
        self._names_of: dict[tuple[int, int], list[str]] = defaultdict(list)
        self._linked = 0
        self._inside = os.path.realpath(root)
        self._waiting: list[tuple[str, str, tuple[tuple[int, int], ...], bool]] = [(str(root), "", (), False)]
        while self._waiting:
            self._enter(*self._waiting.pop())
        aside = [left_aside(what, sorted(names)) for what, names in sorted(self._left.items())]
        twice = sorted(sorted(names) for names in self._names_of.values() if len(names) > 1)
        aside += [f"one folder under several names, its pictures taken for each: {', '.join(n)}" for n in twice]
        self.found.aside = aside

    def _enter(self, path: str, name: str, above: tuple[tuple[int, int], ...], linked: bool) -> None:
        try:
            info = os.stat(path)
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self._fail(error, path, name, _CLOSED_FOLDERS)
            return
        place = (info.st_dev, info.st_ino)
        if place in above:
            self._left[_LOOPS].append(name)
            return
        linked = linked or bool(self._names_of[place])
        self._names_of[place].append(name)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            below = f"{name}/{_text(entry.name)}" if name else _text(entry.name)
            try:
                info = entry.stat()
                link = entry.is_symlink()
            except OSError as error:
                self._fail(error, entry.path, below, _CLOSED_FILES)
                continue
            self._count(linked or link)
            if stat.S_ISDIR(info.st_mode):
                self._folder(entry.path, below, (*above, place), linked, link)
            elif not stat.S_ISREG(info.st_mode):
                self._left[_NO_FILES].append(below)  # reading a pipe would wait for ever
            elif not os.access(entry.path, os.R_OK):
                self._left[_CLOSED_FILES].append(below)
            elif below in self.found.files:
                self._left[_ALIKE].append(below)
            else:
                self.found.files[below] = entry.path, _state(info)

    def _folder(self, path: str, name: str, above: tuple[tuple[int, int], ...], linked: bool, link: bool) -> None:
        if link:
            target = os.path.realpath(path)
            if os.path.commonpath((target, self._inside)) == target:
                self._left[_LOOPS].append(name)
                return
            if any(os.path.commonpath((target, system)) == system for system in _SYSTEM):
                self._left[_INTO_SYSTEM].append(name)
                return
            linked = linked or os.path.commonpath((target, self._inside)) != self._inside
        self._waiting.append((path, name, above, linked))

    def _count(self, linked: bool) -> None:
        self._linked += linked
        if self._linked > MAX_LINKED:
            raise InputError(
                f"{self.root} has links that bring in more than {MAX_LINKED:,} files; remove the link, or give the "
                "folder that it leads to."
            )
        if len(self.found.files) >= MAX_FILES or len(self._names_of) >= MAX_FILES:
            raise InputError(f"{self.root} holds more than {MAX_FILES:,} files; give fewer.")

    def _fail(self, error: OSError, path: str, name: str, closed: str) -> None:
        if error.errno in _NOWHERE and os.path.islink(path):
            self._left[_DANGLING].append(name)
        elif error.errno in _FORBIDDEN and name:
            self._left[closed].append(name)
        elif error.errno in _FORBIDDEN:
            raise InputError(f"{self.root} may not be read ({error.strerror}); ask its owner, or give another.")
        else:
            raise ReadFault(path, error)
