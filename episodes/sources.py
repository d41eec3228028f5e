"""Pictures out of folders and zip files that may be broken or hostile.

Nothing is ever extracted to disk: members are read into memory by name, within limits.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from episodes.errors import InputError

MAX_MEMBERS = 2_000_000
MAX_MEMBER_BYTES = 64 * 2**20
MAX_SIDE = 10_000
MAX_PIXELS = 40_000_000
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class Source:
    """A folder or a zip file, read by relative POSIX names.

    Attributes:
        path: where it is.
        names: every file's name, sorted.
        fingerprint: SHA-256 over names, sizes and (zip) CRC-32 or (folder) modification times.

    Raises:
        InputError: if the path is missing, the zip is damaged, or a member's name leaves the archive.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._zip: zipfile.ZipFile | None = None
        if self.path.is_dir():
            entries = self._scan_folder()
        elif self.path.is_file():
            entries = self._scan_zip()
        else:
            raise InputError(f"{self.path} does not exist; give a folder or a zip file.")
        self.names = sorted(entries)
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(f"{name}\0{entries[name]}\n".encode(errors="surrogateescape"))
        self.fingerprint = digest.hexdigest()

    def _scan_folder(self) -> dict[str, str]:
        entries: dict[str, str] = {}
        for folder, subfolders, files in os.walk(self.path):
            subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
            for file in files:
                if file.startswith("."):
                    continue
                full = Path(folder) / file
                try:
                    stat = full.stat()
                except OSError:
                    continue  # a dangling link holds no picture
                entries[full.relative_to(self.path).as_posix()] = f"{stat.st_size} {stat.st_mtime_ns}"
                if len(entries) > MAX_MEMBERS:
                    raise InputError(f"{self.path} holds more than {MAX_MEMBERS:,} files; give a smaller folder.")
        return entries

    def _scan_zip(self) -> dict[str, str]:
        try:
            self._zip = zipfile.ZipFile(self.path)
            members = self._zip.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"{self.path} is not a readable zip file ({error}); it may be cut short: fetch it again."
            ) from error
        if len(members) > MAX_MEMBERS:
            raise InputError(f"{self.path} lists {len(members):,} members; at most {MAX_MEMBERS:,} are read.")
        entries: dict[str, str] = {}
        for member in members:
            if member.is_dir():
                continue
            name = PurePosixPath(member.filename)
            if name.is_absolute() or ".." in name.parts or "\\" in member.filename or ":" in name.parts[0]:
                raise InputError(
                    f"{self.path} has a member named {member.filename!r}, which points outside the archive. "
                    "Nothing was read from it; do not trust this file."
                )
            entries[member.filename] = f"{member.file_size} {member.CRC}"
        return entries

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            InputError: if it is missing, damaged, or unpacks to more than `MAX_MEMBER_BYTES`.
        """
        where = f"{name} in {self.path}"
        try:
            if self._zip is None:
                full = self.path / name
                size = full.stat().st_size
                if size > MAX_MEMBER_BYTES:
                    raise InputError(f"{where} has {size:,} bytes; at most {MAX_MEMBER_BYTES:,} are read.")
                return full.read_bytes()
            with self._zip.open(name) as member:
                data = member.read(MAX_MEMBER_BYTES + 1)
        except InputError:
            raise
        except KeyError as error:
            raise InputError(f"{where} is missing.") from error
        except Exception as error:  # zipfile raises many kinds for damaged members
            raise InputError(f"{where} cannot be read ({error}); the file may be damaged: fetch it again.") from error
        if len(data) > MAX_MEMBER_BYTES:
            raise InputError(f"{where} unpacks to more than {MAX_MEMBER_BYTES:,} bytes; nothing more was read.")
        return data

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()


def is_picture(name: str) -> bool:
    """Whether the name ends like a picture and is not a system's own file."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in PICTURE_SUFFIXES and not hidden


def open_picture(data: bytes, where: str) -> Image.Image:
    """A decoded picture in its own mode, upright by its EXIF orientation.

    Raises:
        InputError: if the bytes are no picture, are cut short, or claim more than `MAX_PIXELS` pixels.
    """
    from PIL import ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture: Image.Image = Image.open(io.BytesIO(data))
            width, height = picture.size
            if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
                raise InputError(
                    f"{where} is {width} x {height} pixels; at most {MAX_SIDE:,} a side and {MAX_PIXELS:,} in "
                    "all are decoded. Make it smaller."
                )
            picture.load()
            return ImageOps.exif_transpose(picture)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds for damaged bytes
        raise InputError(f"{where} is not a readable picture ({error}).") from error


def to_tensor(picture: Image.Image, size: int, channels: int, invert: bool = False) -> Tensor:
    """uint8 ``[channels, size, size]``: grey or RGB, centre-cropped to a square, then resized with a filter.

    1-bit and palette pictures are widened to 8 bits first; resized as they are, the filter is ignored.
    Transparent pixels become white.
    """
    if picture.mode in ("RGBA", "LA", "PA") or (picture.mode == "P" and "transparency" in picture.info):
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        values = np.asarray(picture, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        scale = 255.0 / (high - low) if high > low else 0.0
        picture = Image.fromarray(((values - low) * scale).astype(np.uint8))
    picture = picture.convert("L" if channels == 1 else "RGB")
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    array = np.asarray(picture)
    if invert:
        array = 255 - array
    array = array[None] if channels == 1 else array.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(array))
