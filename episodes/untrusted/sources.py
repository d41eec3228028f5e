"""Pictures out of folders and zip files that may be broken or hostile.

Nothing is ever extracted to disk: files are read into memory by name, within limits.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import warnings
import zipfile
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from episodes.errors import InputError
from episodes.paths import expanded

MAX_MEMBERS = 1_000_000
MAX_MEMBER_BYTES = 64 * 2**20
MAX_DIRECTORY_BYTES = 512 * 2**20
MAX_SIDE = 20_000
MAX_PIXELS = 64_000_000
MAX_VALUES = 108_000_000  # pixels times channels, but for JPEGs in RGB: a 600 dpi page in colour
MAX_DEEP_PIXELS = 16_000_000  # of 16 or 32 bits each, which are scaled as float32
MAX_SCANNED_PIXELS = 10 * MAX_PIXELS  # over all scans of a progressive JPEG
MAX_SLOW_BYTES = 2 * 2**20  # of the variants that Pillow decodes in Python
MAX_RATIO, RATIO_BYTES = 100, 256 * 2**20  # a zip that unpacks to more than both is a bomb
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Named one by one because Pillow goes by content, not by suffix, and its EPS reader starts Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F")


class Source:
    """A folder or a zip file, read by relative POSIX names.

    Opening one is cheap enough for every start: a zip's directory is hashed as it lies on disk, and only
    parsed (and checked) when a name is asked for.

    Attributes:
        path: where it is.
        fingerprint: SHA-256. Of a zip: its size and its directory (names, sizes, CRC-32 of the contents); of
            a folder: its files' names, sizes and modification times.

    Raises:
        InputError: if the path is missing or the zip is damaged; from `names` and `read`, if a member's name
            leaves the archive.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = expanded(path)
        self._zip: zipfile.ZipFile | None = None
        self._folder: dict[str, str] | None = None
        if self.path.is_dir():
            self._folder = self._scan_folder()
            digest = hashlib.sha256()
            for name in sorted(self._folder):
                digest.update(f"{name}\0{self._folder[name]}\n".encode(errors="surrogateescape"))
            self.fingerprint = digest.hexdigest()
        elif self.path.is_file():
            self.fingerprint = self._hash_directory()
        else:
            raise InputError(f"{self.path} does not exist; give a folder or a zip file.")

    @cached_property
    def names(self) -> list[str]:
        """Every file's name, sorted."""
        return sorted(self._entries)

    @cached_property
    def _entries(self) -> frozenset[str]:
        return frozenset(self._folder if self._folder is not None else self._scan_zip())

    def _scan_folder(self) -> dict[str, str]:
        entries: dict[str, str] = {}
        seen: set[tuple[int, int]] = set()
        # Links to folders are followed, as people do link their pictures in; a loop of links ends at `seen`.
        for folder, subfolders, files in os.walk(self.path, followlinks=True):
            here = os.stat(folder)
            if (here.st_dev, here.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((here.st_dev, here.st_ino))
            subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
            prefix = os.path.relpath(folder, self.path).replace(os.sep, "/")
            for file in files:
                if file.startswith("."):
                    continue
                try:
                    info = os.stat(os.path.join(folder, file))
                except OSError:
                    continue  # a dangling link holds no picture
                if not stat.S_ISREG(info.st_mode):
                    continue  # reading a pipe would wait for ever
                entries[file if prefix == "." else f"{prefix}/{file}"] = f"{info.st_size} {info.st_mtime_ns}"
                if len(entries) > MAX_MEMBERS:
                    raise InputError(f"{self.path} holds more than {MAX_MEMBERS:,} files; give fewer.")
        return entries

    def _damaged(self, reason: object) -> InputError:
        return InputError(
            f"{self.path} is not a readable zip file ({reason}); it may be cut short: fetch it again, or "
            "give a folder or a zip."
        )

    def _hash_directory(self) -> str:
        """SHA-256 of the size and of all that follows the members: the zip's own list of names and CRC-32s.

        Bounds what `zipfile` would take into memory before it is let near the file.
        """
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, io.SEEK_END)
                file.seek(max(0, size - 65_557))  # the end record and the longest comment
                tail = file.read()
                at = tail.rfind(b"PK\5\6")
                if at < 0 or len(tail) - at < 22:
                    raise self._damaged("it has no end record")
                span = struct.unpack_from("<L", tail, at + 12)[0]
                end = size - len(tail) + at
                if span == 0xFFFFFFFF:  # zip64 keeps the true length in a record before this one
                    locator = tail.rfind(b"PK\6\6", 0, at)
                    if locator < 0 or at - locator < 56:
                        raise self._damaged("its zip64 record is missing")
                    span = struct.unpack_from("<Q", tail, locator + 40)[0]
                    end = size - len(tail) + locator
                if span > end:
                    raise self._damaged("its directory does not fit in the file")
                if span > MAX_DIRECTORY_BYTES:
                    raise InputError(
                        f"{self.path} has a member list of {span:,} bytes; at most {MAX_DIRECTORY_BYTES:,} "
                        "are read. Make several smaller zips."
                    )
                file.seek(end - span)
                directory = file.read()
        except OSError as error:
            raise self._damaged(error) from error
        members = directory.count(b"PK\1\2")
        if members > MAX_MEMBERS:
            raise InputError(f"{self.path} lists {members:,} members; at most {MAX_MEMBERS:,} are read.")
        return hashlib.sha256(b"%d\0" % size + directory).hexdigest()

    def _archive(self) -> zipfile.ZipFile:
        if self._zip is None:
            try:
                self._zip = zipfile.ZipFile(self.path)
            except Exception as error:  # zipfile raises many kinds for a damaged directory
                raise self._damaged(error) from error
        return self._zip

    def _scan_zip(self) -> list[str]:
        names = []
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
        for member in members:
            name = PurePosixPath(member.filename)
            # a drive letter or a backslash is a way out on Windows only, but nobody needs one
            drive = bool(name.parts) and ":" in name.parts[0]
            if name.is_absolute() or ".." in name.parts or "\\" in member.filename or drive:
                raise InputError(
                    f"{self.path} has a member named {member.filename!r}, which points outside the archive. "
                    "Nothing was read from it; do not trust this file."
                )
            if name.parts and not member.is_dir():
                names.append(member.filename)
        return names

    def read(self, name: str) -> bytes:
        """The bytes of one of `names`.

        Raises:
            InputError: if it is missing, damaged, encrypted, or unpacks to more than `MAX_MEMBER_BYTES`.
        """
        where = f"{name} in {self.path}"
        if name not in self._entries:  # so no name, wherever it came from, leads outside
            raise InputError(f"{where} is missing.")
        try:
            if self._folder is not None:
                with (self.path / name).open("rb") as file:
                    data = file.read(MAX_MEMBER_BYTES + 1)
            else:
                archive = self._archive()
                member = archive.getinfo(name)
                if member.flag_bits & 1:
                    raise InputError(f"{where} is encrypted; unpack it with its password and zip it without.")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    # the others unpack in one go, with no limit on memory
                    raise InputError(
                        f"{where} is packed by method {member.compress_type}; only stored and deflated "
                        "members are read. Zip it again with the usual settings."
                    )
                # never ask for more than was told: a member that unpacks to more ends in a checksum error
                with archive.open(member) as stream:
                    data = stream.read(min(member.file_size, MAX_MEMBER_BYTES) + 1)
        except InputError:
            raise
        except Exception as error:  # zipfile raises many kinds for damaged members
            raise InputError(f"{where} cannot be read ({error}); the file may be damaged: fetch it again.") from error
        if len(data) > MAX_MEMBER_BYTES:
            raise InputError(f"{where} has more than {MAX_MEMBER_BYTES:,} bytes; no more was read.")
        return data

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()
            self._zip = None


def is_picture(name: str) -> bool:
    """Whether the name ends like a picture and is not a system's own file."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in PICTURE_SUFFIXES and not hidden


def open_picture(data: bytes, where: str) -> Image.Image:
    """A decoded picture in its own mode, upright by its EXIF orientation; the first frame of an animation.

    Raises:
        InputError: if the bytes are no picture of a known format, are cut short, claim more than `MAX_PIXELS`
            pixels, or hold colours that cannot become RGB.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = picture.size
            if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
                raise InputError(
                    f"{where} is {width} x {height} pixels; at most {MAX_SIDE:,} a side and {MAX_PIXELS:,} "
                    "in all are decoded. Make it smaller."
                )
            _check_effort(picture, data, where)
            picture.load()
            if picture.mode not in _MODES and not picture.mode.startswith("I;16"):
                raise InputError(
                    f"{where} has the colour mode {picture.mode}, which cannot become grey or RGB. Save it "
                    "as an RGB picture."
                )
            return upright(picture)
    except InputError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit comes first for the largest
        raise InputError(
            f"{where} is too large ({error}); at most {MAX_SIDE:,} pixels a side and {MAX_PIXELS:,} in all "
            "are decoded. Make it smaller."
        ) from error
    except UnidentifiedImageError as error:  # its own text names an object in memory
        raise InputError(f"{where} is not a readable picture (none of {', '.join(_FORMATS)}).") from error
    except Exception as error:  # Pillow's decoders raise many kinds for damaged bytes
        raise InputError(f"{where} is not a readable picture ({error}).") from error


def upright(picture: Image.Image) -> Image.Image:
    """A decoded picture turned as its EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # a damaged EXIF block does not spoil the picture
        return picture


def _check_effort(picture: Image.Image, data: bytes, where: str) -> None:
    """Refuses small files whose decoding takes many seconds, or more memory than their pixels say."""
    pixels = picture.width * picture.height
    if pixels > MAX_DEEP_PIXELS and (picture.mode in ("I", "F") or picture.mode.startswith("I;16")):
        raise InputError(
            f"{where} has {pixels:,} pixels of 16 or 32 bits; at most {MAX_DEEP_PIXELS:,} are decoded. Make it smaller."
        )
    jpeg = picture.format in ("JPEG", "MPO")
    channels = 4 if picture.mode in ("P", "PA") else len(picture.getbands())
    if pixels * channels > MAX_VALUES and not (jpeg and channels < 4):
        raise InputError(
            f"{where} has {pixels:,} pixels of {channels} channels; at most {MAX_VALUES // channels:,} of these are "
            "decoded, more as a JPEG. Make it smaller."
        )
    if jpeg and pixels * data.count(b"\xff\xda") > MAX_SCANNED_PIXELS:
        raise InputError(f"{where} is a progressive JPEG of too many scans for its size. Save it again.")
    # plain-text PNM and run-length BMP
    slow = data[:2] in (b"P1", b"P2", b"P3") or (picture.format == "BMP" and data[30:31] in (b"\1", b"\2"))
    if slow and len(data) > MAX_SLOW_BYTES:
        raise InputError(f"{where} is a text PNM or a run-length BMP of {len(data):,} bytes; save it as a PNG.")


def is_deep(picture: Image.Image) -> bool:
    """Whether a picture's numbers are of 16 or 32 bits."""
    return picture.mode.startswith("I;16") or picture.mode in ("I", "F")


def deep_values(picture: Image.Image) -> np.ndarray:
    """float32 ``[H, W]``: the numbers of a picture of 16 or 32 bits; NaN and infinity become 0.

    A transparent colour key becomes white, as `deep_range` has it.
    """
    values = np.nan_to_num(np.asarray(picture, dtype=np.float32), posinf=0.0, neginf=0.0)
    key = picture.info.get("transparency")
    if isinstance(key, int):
        clear = values == key
        values = np.where(clear, deep_range(values[~clear])[1] if not clear.all() else 1.0, values)
    return values


def deep_range(values: np.ndarray) -> tuple[float, float]:
    """The numbers of black and white of one picture of 16 or 32 bits, where nothing else tells them.

    Files of 16 bits often hold a camera's 12: a picture without a number above 4,095 is taken for one of these, and
    one without a number above 255 for one of 8. Never by the picture's own extremes where its numbers lie on such a
    scale, or a dark picture would become as bright as any other.
    """
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65_535:
        return low, high if high > low else low + 1
    return 0.0, next(most for most in (1.0, 255.0, 4_095.0, 65_535.0) if high <= most)


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits to 8, by `deep_range`."""
    values = deep_values(picture)
    low, high = deep_range(values)
    return Image.fromarray(np.rint((values - low) * (255 / (high - low))).astype(np.uint8))


def _reduced(picture: Image.Image, size: int) -> Image.Image:
    """A very large picture brought to at least four times ``size`` before anything copies it."""
    factor = min(picture.size) // (4 * size)
    if factor < 2 or picture.width * picture.height < 4_000_000 or is_deep(picture):
        return picture
    if "transparency" in picture.info:
        return picture.convert("LA" if picture.mode in ("1", "L") else "RGBA").reduce(factor)
    wide = {"1": "L", "P": "RGBA", "PA": "RGBA", "La": "LA", "HSV": "RGB"}  # modes that cannot be averaged
    return (picture.convert(wide[picture.mode]) if picture.mode in wide else picture).reduce(factor)


def _over_white(picture: Image.Image) -> Image.Image:
    """The picture laid over white, as RGB."""
    layers = picture.convert("LA" if picture.mode == "La" else "RGBA").convert("RGBA")
    white = Image.new("RGBA", layers.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layers).convert("RGB")


def flattened(picture: Image.Image, size: int) -> Image.Image:
    """A picture of 8 bits without transparency: what was transparent, by alpha or by a colour key, is white.

    Args:
        size: the side it is wanted at; a very large picture is brought nearer to it first.
    """
    picture = _reduced(picture, size)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        return _over_white(picture)
    return picture


def to_tensor(picture: Image.Image, size: int, channels: int, invert: bool = False) -> Tensor:
    """uint8 ``[channels, size, size]``: grey or RGB, centre-cropped to a square, then resized with a filter.

    1-bit and palette pictures are widened to 8 bits first; resized as they are, the filter is ignored.
    Transparent pixels become white.
    """
    picture = _to_8_bits(picture) if is_deep(picture) else flattened(picture, size)
    picture = picture.convert("L" if channels == 1 else "RGB")
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if picture.size != (size, size):
        box = (left, top, left + side, top + side)
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    array = np.asarray(picture)
    if invert:
        array = 255 - array
    array = array[None] if channels == 1 else array.transpose(2, 0, 1)
    return torch.from_numpy(array.copy())
