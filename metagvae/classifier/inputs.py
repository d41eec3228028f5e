"""What people hold (arrays, PIL images, tensors, paths, rows of numbers) as the pictures that an encoder takes."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from episodes import InputError
from episodes.untrusted.archives import MAX_MEMBER_BYTES
from episodes.untrusted.sources import open_picture, to_tensor

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL's grey
_CHUNK = 256  # pictures of full size in flight at a time
_BEYOND = 2.0  # a float above it is on no scale of [0, 1]


@dataclass(frozen=True)
class Scale:
    """How numbers become brightness: ``low`` and below is 0, ``high`` and above is 1, then perhaps inverted."""

    low: float = 0.0
    high: float = 1.0
    invert: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        scaled = ((images - self.low) / ((self.high - self.low) or 1.0)).clamp(0, 1)
        return 1 - scaled if self.invert else scaled


@dataclass(frozen=True)
class Pictures:
    """Pictures at an encoder's size, their numbers still on the scale they came in.

    Args:
        images: float32 ``[n, channels, size, size]``.
        low, high: the smallest and largest number received.
        known: the scale is certain: 8-bit, boolean, PIL images and files, brought to [0, 1].
    """

    images: Tensor
    low: float
    high: float
    known: bool

    def scale(self, value_range: tuple[float, float] | None, invert: bool | None) -> Scale:
        """The scale that these pictures, as the first ones seen, decide for all later ones.

        Args:
            value_range: the numbers of black and white; None takes [0, 1] if the numbers lie in it, else their
                smallest and largest.
            invert: None inverts if the pictures' borders are mostly bright: ink on paper.
        """
        if value_range is not None:
            low, high = value_range
        elif self.known or (self.low >= 0 and self.high <= 1):
            low, high = 0.0, 1.0
        else:
            low, high = self.low, self.high
        if invert is None:
            upright = Scale(low, high)(self.images).mean(1)
            border = torch.cat([upright[:, 0], upright[:, -1], upright[:, :, 0], upright[:, :, -1]], 1)
            invert = bool(border.median() > 0.5)
        return Scale(low, high, invert)

    def on(self, scale: Scale) -> Tensor:
        """Brightness in [0, 1], ``[n, channels, size, size]``.

        Raises:
            InputError: if the numbers are plainly on another scale than the one decided.
        """
        if self.known:
            return Scale(invert=scale.invert)(self.images)
        if (scale.low, scale.high) == (0.0, 1.0) and self.high > _BEYOND:
            raise InputError(
                f"these pictures hold numbers up to {self.high:g}; those seen first were in [0, 1]. Divide by what "
                "white is (255, say), or set value_range."
            )
        return scale(self.images)


def collect(given: Any, channels: int, size: int) -> Pictures:
    """Pictures of any kind at an encoder's size: centre-cropped to a square, resized with a filter, grey or colour.

    Args:
        given: an array or tensor ``[n, H, W]``, ``[n, H, W, C]`` or ``[n, C, H, W]`` with C of 1, 3 or 4; rows
            ``[n, D]``, each a picture unrolled; or a sequence of paths, PIL images, or arrays of one picture each.
        channels, size: of the encoder.

    Raises:
        InputError: if something is no picture, or holds numbers that are not finite.
    """
    if isinstance(given, str | os.PathLike):
        raise InputError(f"expected a sequence of pictures, received the one path {given}; give a list: [{given!r}].")
    if not isinstance(given, np.ndarray | Tensor) and hasattr(given, "__array__"):
        given = np.asarray(given)
    if not isinstance(given, np.ndarray | Tensor):
        if not hasattr(given, "__len__"):
            raise InputError(f"expected arrays, PIL images, tensors or paths; received a {type(given).__name__}.")
        items = list(given) if isinstance(given, Sequence) else np.asarray(given)
        if isinstance(items, list) and items and all(_is_row(item) for item in items):
            items = np.asarray(items)
        given = items
    if isinstance(given, np.ndarray) and given.dtype.kind in "OUS":
        given = list(given)
    if len(given) == 0:
        raise InputError("expected at least one picture; received none.")
    if isinstance(given, list):
        parts = [_one(item, number, channels, size) for number, item in enumerate(given)]
        return Pictures(
            torch.cat([part.images for part in parts]),
            min(part.low for part in parts),
            max(part.high for part in parts),
            all(part.known for part in parts),
        )
    return _batch(given, channels, size)


def _is_row(item: Any) -> bool:
    return isinstance(item, list | tuple) or (isinstance(item, np.ndarray | Tensor) and item.ndim == 1)


def _one(item: Any, number: int, channels: int, size: int) -> Pictures:
    """One picture: a path, a PIL image or an array."""
    where = f"picture {number}"
    if isinstance(item, bytes):
        item = os.fsdecode(item)
    if isinstance(item, str | os.PathLike):
        path = Path(item).expanduser()
        try:
            with path.open("rb") as file:
                data = file.read(MAX_MEMBER_BYTES + 1)
        except OSError as error:
            raise InputError(f"{where}, {path}, cannot be read ({error.strerror}).") from error
        if len(data) > MAX_MEMBER_BYTES:
            raise InputError(f"{where}, {path}, has more than {MAX_MEMBER_BYTES:,} bytes; no more was read.")
        item = open_picture(data, str(path))
    if isinstance(item, Image.Image):
        if channels not in (1, 3):
            raise InputError(f"the encoder takes {channels} channels; give arrays [n, {channels}, H, W].")
        return Pictures(to_tensor(item, size, channels)[None].float() / 255, 0.0, 1.0, True)
    if not isinstance(item, np.ndarray | Tensor) or item.ndim not in (2, 3):
        shape = list(item.shape) if hasattr(item, "shape") else type(item).__name__
        raise InputError(f"{where} should be a path, a PIL image or an array [H, W], [H, W, C] or [C, H, W]: {shape}.")
    return _batch(item[None], channels, size)


def _batch(given: np.ndarray | Tensor, channels: int, size: int) -> Pictures:
    """An array of pictures of one size."""
    if given.ndim == 2:
        given = _unrolled(given, channels, size)
    if given.ndim not in (3, 4):
        raise InputError(
            "pictures come as [n, H, W], [n, H, W, C], [n, C, H, W] or unrolled rows [n, D]; received "
            f"{list(given.shape)}."
        )
    images = given if isinstance(given, Tensor) else torch.from_numpy(np.ascontiguousarray(_native(given)))
    if images.is_complex():
        raise InputError("Complex data not supported: pictures hold real numbers.")
    if images.ndim == 3:
        images = images.unsqueeze(1)
    else:
        # numpy's pictures end in their channels, torch's begin with them; a clear case decides
        first, last = images.shape[1] in (1, 3, 4, channels), images.shape[3] in (1, 3, 4, channels)
        if last and (not first or not isinstance(given, Tensor)):
            images = images.permute(0, 3, 1, 2)
    known = images.dtype in (torch.uint8, torch.bool)
    low, high = float(images.min()), float(images.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise InputError("the pictures hold NaN or infinity (inf); replace these numbers first.")
    unit = 255.0 if images.dtype == torch.uint8 else 1.0
    parts = [_fitted(part.float() / unit, channels, size) for part in images.split(_CHUNK)]
    return Pictures(torch.cat(parts), low / unit, high / unit, known)


def _native(array: np.ndarray) -> np.ndarray:
    """Numbers of a type that torch has."""
    if array.dtype.kind == "b" or array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "uifc":
        raise InputError(f"pictures hold numbers; received an array of {array.dtype}.")
    return array if array.dtype.kind == "c" else array.astype(np.float32)


def _unrolled(rows: np.ndarray | Tensor, channels: int, size: int) -> np.ndarray | Tensor:
    """Rows ``[n, D]`` as square pictures: of the encoder's shape, grey, or colour (channels first), by D.

    A D that no square has is filled up with the row's lowest number, and a warning says so.
    """
    count, length = rows.shape
    if length == 0:
        raise InputError("0 feature(s) (shape=" + f"{tuple(rows.shape)}) while a minimum of 1 is required.")
    if length == channels * size * size:
        return rows.reshape(count, channels, size, size)
    side = math.isqrt(length)
    if side * side == length:
        return rows.reshape(count, side, side)
    third = math.isqrt(length // 3)
    if 3 * third * third == length and third > 1:
        return rows.reshape(count, 3, third, third)
    side += 1
    warnings.warn(
        f"rows of {length} numbers are no square picture; each is filled up to {side} x {side}. Give pictures as "
        "[n, H, W] or [n, H, W, C] if they have another shape.",
        stacklevel=2,
    )
    values = rows.numpy() if isinstance(rows, Tensor) else _native(rows)
    fill = np.repeat(values.min(1, keepdims=True), side * side - length, axis=1)
    return np.concatenate([values, fill], 1).reshape(count, side, side)


def _fitted(images: Tensor, channels: int, size: int) -> Tensor:
    """float32 ``[n, C, H, W]`` to ``[n, channels, size, size]``."""
    given = images.shape[1]
    if given == 4 and channels != 4:
        images, alpha = images[:, :3], images[:, 3:]
        images, given = images * alpha + (1 - alpha), 3  # transparent becomes white, as in files
    if given == 3 and channels == 1:
        images = (images * torch.tensor(_LUMA, device=images.device)[:, None, None]).sum(1, keepdim=True)
    elif given == 1 and channels != 1:
        images = images.expand(-1, channels, -1, -1)
    elif given != channels:
        raise InputError(
            f"the encoder takes {channels} channel(s); received pictures of {given}: {list(images.shape)}."
        )
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    images = images[..., top : top + side, left : left + side]
    if side != size:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return images.contiguous()


def batches(images: Tensor) -> Iterator[Tensor]:
    """Runs of pictures small enough to go through a network at once, some 200,000 numbers of 28 x 28 each."""
    count = max(16, 1024 * 28 * 28 // (images.shape[-2] * images.shape[-1]))
    return iter(images.split(count))
