"""Drawings and uploads as pictures of dark ink on white paper, the ink centred."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import numpy as np
from PIL import Image

from episodes import InputError
from episodes.untrusted.sources import flattened, is_deep, open_picture, to_8_bits

MAX_UPLOAD = 8 * 2**20  # bytes of an uploaded picture
LARGEST = 320  # pixels: the longer side of what is kept of a picture, however large it came
MAX_DRAWING = 2 * 2**20  # bytes of a drawing as it comes from the page
_MARGIN = 0.2  # of the side of a centred picture, white all round
_INK = 128  # darker is ink


def from_page(value: str) -> Image.Image:
    """The grey picture of a drawing as the page sends it, ``data:image/png;base64,...``.

    Raises:
        InputError: if it is no such drawing.
    """
    head, _, body = value.partition(",")
    if not head.startswith("data:image/png;base64") or len(body) > MAX_DRAWING:
        raise InputError("the page sent no drawing; draw something, or load the page again.")
    try:
        data = base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise InputError("the page sent a damaged drawing; draw it again.") from error
    return paper(open_picture(data, "the drawing"))


def read_upload(file: Path) -> bytes:
    """The bytes of an uploaded file; raises `InputError` if there are more than `MAX_UPLOAD`."""
    size = file.stat().st_size
    if size > MAX_UPLOAD:
        raise InputError(
            f"{file.name} has {size / 2**20:.1f} MB; images of at most {MAX_UPLOAD / 2**20:.0f} MB are taken. "
            "Make it smaller first: a side of a few hundred pixels is plenty."
        )
    return file.read_bytes()


def from_upload(path: str) -> Image.Image:
    """The grey picture of an uploaded file.

    Raises:
        InputError: if it is too large or no picture.
    """
    file = Path(path)
    return paper(open_picture(read_upload(file), file.name))


def take_upload(path: str) -> Image.Image:
    """`from_upload`, after which the file is gone: nothing of a visitor's stays on the disk.

    Raises:
        InputError: if it is too large or no picture.
    """
    try:
        return from_upload(path)
    finally:
        Path(path).unlink(missing_ok=True)


def paper(picture: Image.Image) -> Image.Image:
    """Grey, white where it was transparent, and dark ink on bright paper whichever way it came.

    What is larger than `LARGEST` is brought to it.
    """
    grey = (to_8_bits(picture) if is_deep(picture) else flattened(picture, LARGEST)).convert("L")
    grey.thumbnail((LARGEST, LARGEST))
    pixels = np.asarray(grey)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return Image.fromarray(255 - pixels) if np.median(border) < _INK else grey


def centred(picture: Image.Image) -> Image.Image:
    """A square picture with the ink in its middle, its longer side all but the margins; as sent if there is none.

    Where and how large somebody draws says nothing of the character.
    """
    pixels = np.asarray(picture)
    rows, columns = np.nonzero(pixels < _INK)
    if not len(rows):
        return picture
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    ink = picture.crop(box)
    side = max(8, round(max(ink.size) / (1 - 2 * _MARGIN)))
    square = Image.new("L", (side, side), 255)
    square.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    return square


def empty(picture: Image.Image) -> bool:
    """Whether there is no ink."""
    return bool((np.asarray(picture) >= _INK).all())
