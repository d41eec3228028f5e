"""A zip file that may be broken or hostile, read by names within limits; nothing is ever extracted to disk."""

from __future__ import annotations

import errno
import hashlib
import io
import struct
import zipfile
from collections import Counter
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from episodes.errors import InputError
from episodes.untrusted.faults import ReadFault
from episodes.untrusted.picture_files import left_aside

MAX_MEMBERS = 1_000_000
MAX_DIRECTORY_BYTES = 512 * 2**20
MAX_RATIO, RATIO_BYTES = 100, 256 * 2**20  # a zip that unpacks to more than both is a bomb
_END, _END64, _LOCATOR64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_OTHER_ARCHIVES = {
    b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}  # fmt: skip


class ZipFiles:
    """The members of a zip file.

    Opening one is cheap enough for every start: its directory is hashed as it lies on disk, and only parsed (and
    checked) when a name is asked for.

    Attributes:
        fingerprint: SHA-256 of the size and the directory: names, sizes, CRC-32 of the contents.

    Raises:
        InputError: if the zip is damaged; from the others, also if a member's name leaves the archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        try:
            with path.open("rb") as file:
                self._start, self.fingerprint = self._directory(file)
        except OSError as error:
            raise ReadFault(path, error) from error

    @cached_property
    def members(self) -> dict[str, zipfile.ZipInfo]:
        """Every file in it by name, with ``/`` between its parts; of two with one name, the last."""
        members = self._checked()
        return {name: member for name, member in members if name}

    @cached_property
    def aside(self) -> list[str]:
        """A sentence on members that others of the same name hide."""
        counts = Counter(name for name, _ in self._checked() if name)
        twice = [name for name, count in counts.items() if count > 1]
        return [left_aside("members that a later one of the same name hides", twice)] if twice else []

    def _damaged(self, reason: object) -> InputError:
        return InputError(
            f"{self.path} is not a readable zip file ({reason}); it may be cut short: fetch it again, or "
            "give a folder or a zip."
        )

    def _directory(self, file: BinaryIO) -> tuple[int, str]:
        """Where the directory begins, and the SHA-256 of the file's size and of all from there on.

        Finds it as `zipfile` does, and bounds what that would take into memory before it is let near the file.
        """
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 65_557))  # the end record and the longest comment
        tail = file.read()
        at = len(tail) - 22
        if tail[at : at + 4] != _END or tail[-2:] != b"\0\0":
            at = tail.rfind(_END)
        if at < 0 or len(tail) - at < 22:
            file.seek(0)
            raise self._no_zip(file.read(300))
        (span,) = struct.unpack_from("<L", tail, at + 12)
        end = at
        if tail[at - 20 : at - 16] == _LOCATOR64 and tail[at - 76 : at - 72] == _END64 and at >= 76:
            (span,) = struct.unpack_from("<Q", tail, at - 76 + 40)  # zip64 overrules the record after it
            end = at - 76
        elif span == 0xFFFFFFFF:
            raise self._damaged("its zip64 record is missing")
        start = size - len(tail) + end - span
        if start < 0:
            raise self._damaged("its directory does not fit in the file")
        if span > MAX_DIRECTORY_BYTES:
            raise InputError(
                f"{self.path} has a member list of {span:,} bytes; at most {MAX_DIRECTORY_BYTES:,} "
                "are read. Make several smaller zips."
            )
        file.seek(start)
        directory = file.read()
        members = directory.count(b"PK\1\2")
        if members > MAX_MEMBERS:
            raise InputError(f"{self.path} lists {members:,} members; at most {MAX_MEMBERS:,} are read.")
        return start, hashlib.sha256(b"%d\0" % size + directory).hexdigest()

    def _no_zip(self, head: bytes) -> InputError:
        kind = next((name for magic, name in _OTHER_ARCHIVES.items() if head.startswith(magic)), None)
        kind = "tar" if head[257:262] == b"ustar" else kind
        if kind is not None:
            return InputError(f"{self.path} is a {kind} archive, no zip; unpack it and give the folder.")
        return self._damaged("it has no end record")

    def _archive(self) -> zipfile.ZipFile:
        if self._zip is None:
            try:
                archive = zipfile.ZipFile(self.path)
            except OSError as error:
                raise ReadFault(self.path, error) from error
            except Exception as error:  # zipfile raises many kinds for a damaged directory
                raise self._damaged(error) from error
            if archive.start_dir != self._start:  # or the fingerprint would be of another list of members
                archive.close()
                raise self._damaged("it has two directories")
            self._zip = archive
        return self._zip

    def _checked(self) -> list[tuple[str, zipfile.ZipInfo]]:
        """Every member with its name, which is empty for a folder."""
        members = self._archive().infolist()
        size = self.path.stat().st_size
        if sum(member.compress_size for member in members) > size:
            raise InputError(f"{self.path} has members that overlap, as only a zip bomb's do. Do not trust this file.")
        unpacked = sum(member.file_size for member in members)
        if unpacked > max(RATIO_BYTES, MAX_RATIO * size):
            raise InputError(
                f"{self.path} has {size:,} bytes and unpacks to {unpacked:,}, more than {MAX_RATIO} times as many, as "
                "only a zip bomb does. If you trust it, unpack it and give the folder."
            )
        return [(self._inner_name(member), member) for member in members]

    def _inner_name(self, member: zipfile.ZipInfo) -> str:
        """The member's name with ``/`` between its parts; some programs on Windows write backslashes."""
        given = member.filename.replace("\\", "/")
        name = PurePosixPath(given)
        # a drive letter is a way out on Windows only, but nobody needs one
        drive = bool(name.parts) and ":" in name.parts[0]
        if name.is_absolute() or ".." in name.parts or drive:
            raise InputError(
                f"{self.path} has a member named {member.filename!r}, which points outside the archive. "
                "Nothing was read from it; do not trust this file."
            )
        return "" if given.endswith("/") else "/".join(name.parts)

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a member, or its first ``most``.

        Raises:
            InputError: if it is damaged, encrypted, or packed by a method without a limit.
        """
        where, member = f"{name} in {self.path}", self.members[name]
        if member.flag_bits & 1:
            raise InputError(f"{where} is encrypted; unpack it with its password and zip it without.")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # the others unpack in one go, with no limit on memory
            raise InputError(
                f"{where} is packed by method {member.compress_type}; only stored and deflated "
                "members are read. Zip it again with the usual settings."
            )
        try:
            # never ask for more than was told: a member that unpacks to more ends in a checksum error
            with self._archive().open(member) as stream:
                return stream.read(min(member.file_size + 1, most))
        except InputError:
            raise
        except OSError as error:
            if error.errno in (None, errno.EINVAL):  # a place before the file's beginning, in a forged directory
                raise self._broken(where, error) from error
            raise ReadFault(where, error) from error
        except Exception as error:  # zipfile raises many kinds for damaged members
            raise self._broken(where, error) from error

    def _broken(self, where: str, error: Exception) -> InputError:
        what = str(error)[:200]  # zipfile quotes headers, however long
        return InputError(f"{where} cannot be read ({what}); the file may be damaged: fetch it again.")

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()
            self._zip = None
