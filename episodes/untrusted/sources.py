"""Pictures out of bytes that may be broken or hostile, as tensors; decoded within limits of time and memory."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, features
from torch import Tensor

from episodes.errors import InputError
from episodes.untrusted.metadata import check_exif, check_metadata

MAX_SIDE = 20_000
MAX_PIXELS = 64_000_000
MAX_VALUES = 108_000_000  # pixels times channels, but for JPEGs in RGB: a 600 dpi page in colour
MAX_DEEP_PIXELS = 16_000_000  # of 16 or 32 bits each, which are scaled as float32, or in AVIF, which is slow
MAX_SCANNED_PIXELS = 10 * MAX_PIXELS  # over all scans of a progressive JPEG
MAX_SLOW_BYTES = 2 * 2**20  # of the variants that Pillow decodes in Python
# Named one by one because Pillow goes by content, not by suffix, and its EPS reader starts Ghostscript.
# Pillow reads AVIF from 11.3 on.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", *(("AVIF",) if features.check("avif") else ()))
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F")
_CAMERA = 4_095.0  # the largest number of 12 bits
_SIGNED_16 = (TiffImagePlugin.SAMPLEFORMAT, 2)  # a key of info that no file can bring: theirs are text


def open_picture(data: bytes, where: str) -> Image.Image:
    """A decoded picture in its own mode, upright by its EXIF orientation; the first frame of an animation.

    Raises:
        InputError: if the bytes are no picture of a known format, are cut short, claim more than `MAX_PIXELS`
            pixels, or hold colours that cannot become RGB.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_metadata(data, where)
            picture: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = picture.size
            if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
                raise InputError(
                    f"{where} is {width} x {height} pixels; at most {MAX_SIDE:,} a side and {MAX_PIXELS:,} "
                    "in all are decoded. Make it smaller."
                )
            _check_effort(picture, data, where)
            check_exif(picture, where)
            decode(picture)
            if picture.mode not in _MODES and not picture.mode.startswith("I;16"):
                raise InputError(
                    f"{where} has the colour mode {picture.mode}, which cannot become grey or RGB. Save it "
                    "as an RGB picture."
                )
            check_numbers(picture, where)
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


def decode(picture: Image.Image) -> None:
    """Load a picture, its transparent colour on the scale of its pixels.

    Of a PNG, Pillow widens 2 and 4 bits to 8 and keeps the high byte of colours of 16, but leaves the colour of tRNS in
    the numbers of the file: black would be compared with the low byte of a mid grey, and become transparent.
    """
    key, tiles = picture.info.get("transparency"), getattr(picture, "tile", ())
    kind = tiles[0][3] if picture.format == "PNG" and tiles else None
    picture.load()
    if isinstance(key, int) and kind in ("L;2", "L;4"):
        picture.info["transparency"] = key * (85 if kind == "L;2" else 17)
    elif isinstance(key, tuple) and kind == "RGB;16B":
        picture.info["transparency"] = tuple(number >> 8 for number in key)


def check_numbers(picture: Image.Image, where: str) -> None:
    """Raises `InputError` for a decoded TIFF of 16 or 32 bits whose numbers Pillow gives otherwise than they are meant.

    Where 0 is white, it turns 8 bits and fewer, but no more; 32 bits without a sign it takes for bits with one. That
    16 bits have a sign, which Pillow's mode does not tell, is noted on the picture for `deep_values`.
    """
    if not is_deep(picture) or not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return
    tags = picture.tag_v2
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
        raise InputError(
            f"{where} is a TIFF of 16 or 32 bits in which 0 is white, which would be read as a negative. Save it as a "
            "PNG, or as a TIFF in which 0 is black."
        )
    kind = tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0]
    if kind == 2 and tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0] == 16:
        picture.info[_SIGNED_16] = True
    if picture.mode == "I" and kind == 1 and np.asarray(picture).min() < 0:
        raise InputError(
            f"{where} is a TIFF of 32 bits with numbers of 2**31 or more, which would be read as negative. Save it "
            "with 16 bits or as 32-bit floats."
        )


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
    if pixels > MAX_DEEP_PIXELS and picture.format == "AVIF":  # a second for these, where its encoder was unkind
        raise InputError(
            f"{where} is an AVIF of {pixels:,} pixels; at most {MAX_DEEP_PIXELS:,} are decoded. Make it smaller, or "
            "save it as a JPEG."
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
    slow = any(tile[0] in Image.DECODERS for tile in getattr(picture, "tile", ()))
    if slow and len(data) > MAX_SLOW_BYTES:
        raise InputError(
            f"{where} is a text PNM, one of an odd scale, or a run-length BMP of {len(data):,} bytes; save it as a PNG."
        )


def is_deep(picture: Image.Image) -> bool:
    """Whether a picture's numbers are of 16 or 32 bits."""
    return picture.mode.startswith("I;16") or picture.mode in ("I", "F")


def deep_values(picture: Image.Image) -> np.ndarray:
    """float32 ``[H, W]``: the numbers of a picture of 16 or 32 bits; NaN and infinity become 0.

    16 bits with a sign of which none is negative reach to 32,767 and are brought to the scale of those without. A
    transparent colour key becomes white, as `deep_range` has it.
    """
    values = np.nan_to_num(np.asarray(picture, dtype=np.float32), posinf=0.0, neginf=0.0)
    if picture.info.get(_SIGNED_16) and values.min() >= 0 and values.max() > _CAMERA:
        values = np.minimum(values * np.float32(65_535 / 32_767), 65_535)
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
    return 0.0, next(most for most in (1.0, 255.0, _CAMERA, 65_535.0) if high <= most)


def to_8_bits(picture: Image.Image) -> Image.Image:
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


def to_tensor(picture: Image.Image, size: int, channels: int, invert: bool = False, centre: float = 1.0) -> Tensor:
    """uint8 ``[channels, size, size]``: grey or RGB, centre-cropped to a square, then resized with a filter.

    1-bit and palette pictures are widened to 8 bits first; resized as they are, the filter is ignored.
    Transparent pixels become white. Of the square, the share ``centre`` of its side is kept, round the middle.
    """
    picture = to_8_bits(picture) if is_deep(picture) else flattened(picture, size)
    picture = picture.convert("L" if channels == 1 else "RGB")
    width, height = picture.size
    whole = min(width, height)
    left, top = (width - whole) // 2, (height - whole) // 2
    if picture.size != (size, size) or centre < 1:
        side, cut = whole * centre, whole * (1 - centre) / 2
        box = (left + cut, top + cut, left + cut + side, top + cut + side)
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    array = np.asarray(picture)
    if invert:
        array = 255 - array
    array = array[None] if channels == 1 else array.transpose(2, 0, 1)
    return torch.from_numpy(array.copy())
