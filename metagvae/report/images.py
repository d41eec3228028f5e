"""Pictures inside the page: tensors and figures as data of ``<img>``, each with a text that stands in for it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 56  # pixels of a picture in the page; smaller ones are enlarged by a whole number
GAP = 4
WRONG = (200, 30, 30)


@dataclass(frozen=True)
class Inline:
    """An image that is part of the page.

    Args:
        source: a data URI.
        alt: what it shows, in words.
        width, height: in CSS pixels, where there is room.
    """

    source: str
    alt: str
    width: int
    height: int


def _array(pictures: Tensor) -> np.ndarray:
    """uint8 ``[n, H, W, 1 or 3]`` of pictures ``[n, C, H, W]`` in [0, 1], no larger than `SIDE`."""
    pictures = pictures.detach().float().cpu().nan_to_num().clamp(0, 1)
    if pictures.shape[1] not in (1, 3):
        pictures = pictures.mean(1, keepdim=True)
    height, width = pictures.shape[-2:]
    if max(height, width) > SIDE:
        size = [max(1, round(side * SIDE / max(height, width))) for side in (height, width)]
        pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True, align_corners=False)
    else:
        zoom = SIDE // max(height, width)
        pictures = pictures.repeat_interleave(zoom, -2).repeat_interleave(zoom, -1)
    return (255 * pictures).round().byte().permute(0, 2, 3, 1).numpy()


def _data(image: Image.Image, photograph: bool) -> str:
    """PNG, or JPEG for photographs, which are many times as large in PNG."""
    buffer = io.BytesIO()
    if photograph:
        image.save(buffer, "JPEG", quality=80)
    else:
        image.save(buffer, "PNG", optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{'jpeg' if photograph else 'png'};base64,{text}"


def strip(pictures: Tensor, alt: str, wrong: Sequence[bool] | None = None) -> Inline:
    """Pictures ``[n, C, H, W]`` in [0, 1] side by side; those marked wrong in a red frame with a corner filled."""
    array = _array(pictures)
    count, height, width, channels = array.shape
    colour = channels == 3 or wrong is not None
    sheet = Image.new("RGB" if colour else "L", (count * (width + GAP) - GAP, height), "white")
    for place, picture in enumerate(array):
        tile = Image.fromarray(picture if channels == 3 else picture[..., 0])
        sheet.paste(tile.convert(sheet.mode), (place * (width + GAP), 0))
    if wrong is not None:
        pen = ImageDraw.Draw(sheet)
        for number in np.flatnonzero(np.asarray(wrong)):
            left = int(number) * (width + GAP)
            pen.rectangle((left, 0, left + width - 1, height - 1), outline=WRONG, width=4)
            pen.polygon([(left, 0), (left + width // 3, 0), (left, height // 3)], fill=WRONG)
    return Inline(_data(sheet, channels == 3), alt, *sheet.size)


def chart(figure: Figure, alt: str) -> Inline:
    """A matplotlib figure as SVG, in an ``<img>`` so that nothing in it can reach the page."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    width, height = figure.get_size_inches() * 96
    text = base64.b64encode(buffer.getvalue()).decode()
    return Inline(f"data:image/svg+xml;base64,{text}", alt, round(width), round(height))
