"""Pictures out of bytes that may be broken or hostile, as tensors; decoded within limits of time and memory."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from episodes.errors import InputError

MAX_SIDE = 20_000
MAX_PIXELS = 64_000_000
MAX_VALUES = 108_000_000  # pixels times channels, but for JPEGs in RGB: a 600 dpi page in colour
MAX_DEEP_PIXELS = 16_000_000  # of 16 or 32 bits each, which are scaled as float32
MAX_SCANNED_PIXELS = 10 * MAX_PIXELS  # over all scans of a progressive JPEG
MAX_SLOW_BYTES = 2 * 2**20  # of the variants that Pillow decodes in Python
# Named one by one because Pillow goes by content, not by suffix, and its EPS reader starts Ghostscript.
# Pillow reads AVIF from 11.3 on.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", *(("AVIF",) if features.check("avif") else ()))
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F")


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
            try:
                return ImageOps.exif_transpose(picture)
            except Exception:  # a damaged EXIF block does not spoil the picture
                return picture
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


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits to 8, by the scale its numbers are on; never by the picture's own extremes where
    that scale is known, or a dark picture would become as bright as any other."""
    values = np.nan_to_num(np.asarray(picture, dtype=np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if picture.mode.startswith("I;16") or (low >= 0 and 255 < high <= 65_535):
        values = values * (255 / 65_535)
    elif picture.mode == "F" and low >= 0 and high <= 1:
        values = values * 255
    elif low < 0 or high > 255:
        values = (values - low) * (255 / max(high - low, 1e-30))
    return Image.fromarray(np.rint(values).astype(np.uint8))


def _reduced(picture: Image.Image, size: int) -> Image.Image:
    """A very large picture brought to at least four times ``size`` before anything copies it."""
    factor = min(picture.size) // (4 * size)
    if factor < 2 or picture.width * picture.height < 4_000_000 or picture.mode.startswith(("I", "F")):
        return picture
    wide = {"1": "L", "P": "RGBA", "PA": "RGBA", "La": "LA", "HSV": "RGB"}  # modes that cannot be averaged
    return (picture.convert(wide[picture.mode]) if picture.mode in wide else picture).reduce(factor)


def to_tensor(picture: Image.Image, size: int, channels: int, invert: bool = False) -> Tensor:
    """uint8 ``[channels, size, size]``: grey or RGB, centre-cropped to a square, then resized with a filter.

    1-bit and palette pictures are widened to 8 bits first; resized as they are, the filter is ignored.
    Transparent pixels become white.
    """
    picture = _reduced(picture, size)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or (picture.mode == "P" and "transparency" in picture.info):
        picture = picture.convert("LA" if picture.mode == "La" else "RGBA").convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        picture = _to_8_bits(picture)
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
