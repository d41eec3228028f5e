"""Arrays, tensors and rows of numbers as `Pictures` of an encoder."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import InputError
from metagvae.classifier.pictures import EIGHT_ARRAY, NUMBERS, UNIT, Pictures

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL's grey
_CHUNK = 2**24  # numbers at full size in flight at a time
_COLOURS = (1, 3, 4)
Shape = tuple[int, ...]


def is_table(X: Any) -> bool:
    """Whether X is rows of numbers, a matter for scikit-learn's own checks."""
    if isinstance(X, Tensor):
        return False
    if hasattr(X, "ndim") and hasattr(X, "shape"):
        texts = X.ndim == 1 and getattr(getattr(X, "dtype", None), "kind", "O") in "OUS"
        return X.ndim <= 2 and not texts
    if isinstance(X, list | tuple):
        numbers = all(isinstance(row, list | tuple | int | float) for row in X)
        if len(X) > 0 and isinstance(X[0], list | tuple) and any(isinstance(part, list | tuple) for part in X[0]):
            return False  # pictures as lists of rows
        return len(X) > 0 and (numbers or all(isinstance(row, np.ndarray) and row.ndim == 1 for row in X))
    return hasattr(X, "toarray") or hasattr(X, "__array__")


def dense(tensor: Tensor) -> Tensor:
    """A tensor of numbers that lie one after the other."""
    if tensor.layout != torch.strided or tensor.is_nested:
        raise InputError(f"a tensor of the layout {tensor.layout} is no picture yet; give tensor.to_dense().")
    if tensor.device.type == "meta":
        raise InputError("a tensor on the meta device holds no numbers; give one on the CPU or a GPU.")
    return (tensor.dequantize() if tensor.is_quantized else tensor).detach()


def check_several(given: np.ndarray | Tensor, unrolled: int, like: Shape | None, first: bool) -> None:
    """Raises `InputError` if an array is plainly one picture, which would come apart into its rows or channels."""
    shape = tuple(given.shape)
    one = False
    if len(shape) == 2 and not first:  # rows, or one grey picture: the pictures fitted on tell
        rows = {unrolled} if like is None else {math.prod(like)}
        one = shape[1] not in rows and (like is None or len(like) > 1)
    elif len(shape) == 3:
        last = shape[2] in _COLOURS and min(shape[:2]) > shape[2]
        colours = like is None or len(like) == 3
        leads = shape[0] in _COLOURS[1:] and colours and not first and (like is not None or isinstance(given, Tensor))
        one = (last and (like is None or len(like) != 2 or like[1] != shape[2])) or leads
    if one:
        raise InputError(
            f"an array {list(shape)} looks like one picture, where several are expected: [n, H, W], [n, H, W, C] or "
            "[n, C, H, W]. Give a list, [picture] for a single one, or picture[None]."
        )


def batch(given: np.ndarray | Tensor, channels: int, size: int) -> Pictures:
    """An array of pictures of one size."""
    one = tuple(given.shape[1:])
    if isinstance(given, np.ndarray):
        given = _numeric(given)
    if given.ndim == 2:
        given = _unrolled(given, channels, size)
    if given.ndim not in (3, 4):
        raise InputError(
            "pictures come as [n, H, W], [n, H, W, C], [n, C, H, W] or unrolled rows [n, D]; received "
            f"{list(given.shape)}."
        )
    if math.prod(given.shape) == 0:
        raise InputError(f"pictures need at least one pixel each; received {list(given.shape)}.")
    last = _channels_last(given, channels)
    # numbers above 255 may be of 16 bits, or a camera's 12 in them; so may alpha
    alpha = float((given[..., 3] if last else given[:, 3]).max()) if _has_alpha(given, last, channels) else 0.0
    opaque = next((most for most in (1.0, 255.0, 4_095.0, 65_535.0) if alpha <= most), alpha)
    step = max(1, _CHUNK // math.prod(given.shape[1:]))
    parts = []
    for start in range(0, len(given), step):
        part = given[start : start + step]
        images = part if isinstance(part, Tensor) else torch.from_numpy(np.array(part, order="C"))
        if images.ndim == 3:
            images = images.unsqueeze(1)
        elif last:
            images = images.permute(0, 3, 1, 2)
        parts.append(_fitted(images, channels, size, opaque))
    return Pictures(**{**vars(Pictures.join(parts)), "shape": one})


def _channels_last(given: np.ndarray | Tensor, channels: int) -> bool:
    """numpy's pictures end in their channels, torch's begin with them; a clear case decides."""
    if given.ndim != 4:
        return False
    first, last = given.shape[1] in (*_COLOURS, channels), given.shape[3] in (*_COLOURS, channels)
    return last and (not first or not isinstance(given, Tensor))


def _has_alpha(given: np.ndarray | Tensor, last: bool, channels: int) -> bool:
    return given.ndim == 4 and given.shape[3 if last else 1] == 4 and channels != 4


def _numeric(array: np.ndarray) -> np.ndarray:
    """Numbers of a type that torch has, in this machine's byte order."""
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise InputError("some of the pictures' numbers are masked; fill them first, with array.filled(number).")
    if array.dtype.kind == "c":
        raise InputError("Complex data not supported: pictures hold real numbers.")
    if array.dtype.kind == "O":
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"pictures hold numbers; received an array of objects ({error}).") from error
    if array.dtype.kind not in "buif":
        raise InputError(f"pictures hold numbers; received an array of {array.dtype}.")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


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
    values = rows.cpu().float().numpy() if isinstance(rows, Tensor) else rows
    fill = np.repeat(values.min(1, keepdims=True), side * side - length, axis=1)
    return np.concatenate([values, fill], 1).reshape(count, side, side)


def _fitted(images: Tensor, channels: int, size: int, opaque: float) -> Pictures:
    """``[n, C, H, W]`` of any type of number to `Pictures`; ``opaque`` is the alpha of what is not transparent."""
    if images.is_complex():
        raise InputError("Complex data not supported: pictures hold real numbers.")
    count, given, dtype = len(images), images.shape[1], images.dtype
    images = images.cpu().float()
    if not bool(torch.isfinite(images).all()):
        raise InputError("the pictures hold NaN or infinity (inf); replace these numbers first.")
    clear, lows, highs = None, images.flatten(1).amin(1), images.flatten(1).amax(1)
    if given == 4 and channels != 4:
        images, alpha, given = images[:, :3], (images[:, 3:] / opaque).clamp(0, 1), 3
        seen = (alpha > 0).expand_as(images)
        lows = images.where(seen, torch.inf).flatten(1).amin(1).nan_to_num(posinf=0.0)
        highs = images.where(seen, -torch.inf).flatten(1).amax(1).nan_to_num(neginf=0.0)
        images, clear = images * alpha, _cut(1 - alpha, size)
    if given == 3 and channels == 1:
        images = (images * torch.tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
    elif given != channels and given != 1:
        raise InputError(
            f"the encoder takes {channels} channel(s); received pictures of {given}: {list(images.shape)}."
        )
    whole = (images == images.round()).flatten(1).all(1) if dtype.is_floating_point else torch.ones(count).bool()
    kind = {torch.bool: UNIT, torch.uint8: EIGHT_ARRAY}.get(dtype, NUMBERS)
    return Pictures(
        _cut(images, size).expand(-1, channels, -1, -1).contiguous(),
        clear,
        torch.full((count,), kind),
        lows.double(),
        highs.double(),
        whole,
        torch.zeros(count, 2).double(),
    )


def _cut(images: Tensor, size: int) -> Tensor:
    """The square in the middle, resized with a filter."""
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    images = images[..., top : top + side, left : left + side]
    if side == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
