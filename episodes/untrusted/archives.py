"""One door to files by name, whether they lie in a folder or in a zip file."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from episodes.errors import InputError
from episodes.paths import expanded
from episodes.untrusted.faults import ReadFault
from episodes.untrusted.folder_walk import FolderFiles, folder_files, one_file
from episodes.untrusted.picture_files import HEAD, looks_like_picture
from episodes.untrusted.zip_files import ZipFiles

MAX_MEMBER_BYTES = 64 * 2**20


class Source:
    """A folder, a zip file, or one picture on its own, read by relative POSIX names.

    Attributes:
        path: where it is.
        fingerprint: SHA-256. Of a zip: its size and its directory (names, sizes, CRC-32 of the contents), so that a
            copy has the same; of a folder: its files' names and states on this disk.

    Raises:
        InputError: if the path is missing or the zip is damaged; from `names` and `read`, if a member's name
            leaves the archive.
        ReadFault: from all of them, if the disk fails.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = expanded(path)
        self._zip: ZipFiles | None = None
        self._disk: FolderFiles | None = None
        if self.path.is_dir():
            self._disk = folder_files(self.path)
        elif self.path.is_file():
            if looks_like_picture(self._start_of(self.path)):
                self._disk = one_file(self.path)
            else:
                self._zip = ZipFiles(self.path)
        else:
            raise InputError(f"{self.path} does not exist; give a folder or a zip file.")
        self.fingerprint = self._disk.fingerprint if self._disk is not None else self._files.fingerprint

    @property
    def _files(self) -> ZipFiles:
        assert self._zip is not None
        return self._zip

    @cached_property
    def names(self) -> list[str]:
        """Every file's name, sorted."""
        return sorted(self._disk.files if self._disk is not None else self._files.members)

    @property
    def aside(self) -> list[str]:
        """Sentences on what cannot be had by a name: links that lead nowhere, folders that may not be read ..."""
        return self._disk.aside if self._disk is not None else self._files.aside

    def read(self, name: str) -> bytes:
        """The bytes of one of `names`.

        Raises:
            InputError: if it is missing, damaged, encrypted, or unpacks to more than `MAX_MEMBER_BYTES`.
            ReadFault: if the disk fails.
        """
        data = self._read(name, MAX_MEMBER_BYTES + 1)
        if len(data) > MAX_MEMBER_BYTES:
            raise InputError(f"{name} in {self.path} has more than {MAX_MEMBER_BYTES:,} bytes; no more was read.")
        return data

    def head(self, name: str) -> bytes:
        """The first bytes of one of `names`, by which its kind is told; empty if it is damaged."""
        try:
            return self._read(name, HEAD)
        except ReadFault:
            raise
        except InputError:
            return b""

    def _read(self, name: str, most: int) -> bytes:
        known = self._disk.files if self._disk is not None else self._files.members
        if name not in known:  # so no name, wherever it came from, leads outside
            raise InputError(f"{name} in {self.path} is missing.")
        if self._disk is None:
            return self._files.read(name, most)
        try:
            with open(self._disk.files[name][0], "rb") as file:
                return file.read(most)
        except OSError as error:
            raise ReadFault(f"{name} in {self.path}", error) from error

    @staticmethod
    def _start_of(path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                return file.read(HEAD)
        except OSError as error:
            raise ReadFault(path, error) from error

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()
