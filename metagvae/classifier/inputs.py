"""Arrays, PIL images, tensors, paths, bytes and rows of numbers as `Pictures` of an encoder."""

from __future__ import annotations

import math
import os
import stat
import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from episodes import InputError
from episodes.paths import expanded
from episodes.untrusted.archives import MAX_MEMBER_BYTES
from episodes.untrusted.sources import (
    deep_range,
    deep_values,
    flattened,
    is_deep,
    open_picture,
    upright,
)
from metagvae.classifier.pictures import DEEP, EIGHT, EIGHT_ARRAY, NUMBERS, UNIT, Pictures

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL's grey
_CHUNK = 2**24  # numbers at full size in flight at a time
_COLOURS = (1, 3, 4)
Shape = tuple[int, ...]


def collect(given: Any, channels: int, size: int, like: Shape | None = None, first: bool = True) -> Pictures:
    """Pictures of any kind at an encoder's size: centre-cropped to a square, resized with a filter, grey or colour.

    Args:
        given: an array or tensor ``[n, H, W]``, ``[n, H, W, C]`` or ``[n, C, H, W]`` with C of 1, 3 or 4; rows
            ``[n, D]``, each a picture unrolled; or a sequence of paths, PIL images, encoded bytes, open files, or
            arrays of one picture each. `Pictures` come back as they are.
        channels, size: of the encoder.
        like: the shape of one picture of those fitted on, where they came as arrays of one shape.
        first: these are the pictures fitted on.

    Raises:
        InputError: if something is no picture, is one picture where several are asked for, or holds numbers that are
            not finite.
    """
    if isinstance(given, Pictures):
        if tuple(given.images.shape[1:]) != (channels, size, size):
            raise InputError(f"these pictures were brought to {list(given.images.shape[1:])}, for another encoder.")
        return given
    if isinstance(given, str | os.PathLike | bytes | bytearray | Image.Image) or hasattr(given, "read"):
        raise InputError(f"expected a sequence of pictures, received one {_named(given)}; give a list of one: [it].")
    if isinstance(given, Mapping | Set):
        raise InputError(f"expected a sequence of pictures, received a {type(given).__name__}; give a list of them.")
    if isinstance(given, Tensor):
        given = _dense(given)
    elif not isinstance(given, np.ndarray):
        given = _sequence(given)
    if isinstance(given, np.ndarray) and given.dtype.kind in "US" and given.ndim > 1:
        raise InputError(f"paths come in one row, not in an array {list(given.shape)}.")
    if isinstance(given, np.ndarray) and given.dtype.kind in "OUS" and given.ndim <= 1:
        texts = given.dtype.kind == "S"  # a numpy array drops the zeros at the end, so it can hold names only
        given = [os.fsdecode(item) if texts else item for item in np.atleast_1d(given)]
    if (isinstance(given, Tensor) and given.ndim == 0) or (not isinstance(given, list) and given.ndim == 0):
        raise InputError("expected pictures [n, H, W], received a single number.")
    if len(given) == 0:
        raise InputError("expected at least one picture; received none.")
    if isinstance(given, list):
        return Pictures.join([_one(item, number, channels, size) for number, item in enumerate(given)])
    _check_several(given, channels * size * size, like, first)
    return _batch(given, channels, size)


def collect_each(items: Iterable[Any], channels: int, size: int, problems: dict[int, str] | None = None) -> Pictures:
    """Pictures brought to an encoder's size one after the other.

    Of an iterable that opens each as it is asked for, no two are ever held at full size.

    Args:
        items: paths, PIL images, encoded bytes or arrays, one picture each, or functions that give one.
        problems: gets the reasons of those that cannot be used, by their number; they are left out. None raises.

    Raises:
        InputError: if no picture can be used.
    """
    found = []
    for number, item in enumerate(items):
        try:
            found.append(collect([item() if callable(item) else item], channels, size))
        except InputError as error:
            if problems is None:
                raise
            problems[number] = str(error)
    if not found:
        raise InputError(next(iter((problems or {}).values()), "expected at least one picture; received none."))
    return Pictures.join(found)


def _named(item: Any) -> str:
    text = "encoded picture" if isinstance(item, bytes | bytearray) else type(item).__name__
    return f"path {item}" if isinstance(item, str | os.PathLike) else text


def _sequence(given: Any) -> Any:
    """A list of items, or an array of what numpy takes for one: nested lists, rows, columns of a table."""
    if not hasattr(given, "__array__") and not hasattr(given, "__len__"):
        raise InputError(f"expected arrays, PIL images, tensors or paths; received a {type(given).__name__}.")
    items = list(given) if isinstance(given, Sequence) else np.asarray(given)
    if isinstance(items, list) and items and all(_is_row(item) for item in items):
        try:
            return np.asarray([np.asarray(item) for item in items])
        except ValueError as error:
            raise InputError(f"the rows given are not of one length or type ({error}).") from error
    return items


def _is_row(item: Any) -> bool:
    return isinstance(item, list | tuple) or (isinstance(item, np.ndarray | Tensor) and item.ndim == 1)


def _dense(tensor: Tensor) -> Tensor:
    """A tensor of numbers that lie one after the other."""
    if tensor.layout != torch.strided or tensor.is_nested:
        raise InputError(f"a tensor of the layout {tensor.layout} is no picture yet; give tensor.to_dense().")
    if tensor.device.type == "meta":
        raise InputError("a tensor on the meta device holds no numbers; give one on the CPU or a GPU.")
    return (tensor.dequantize() if tensor.is_quantized else tensor).detach()


def _check_several(given: np.ndarray | Tensor, unrolled: int, like: Shape | None, first: bool) -> None:
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


def _one(item: Any, number: int, channels: int, size: int) -> Pictures:
    """One picture: a path, encoded bytes, an open file, a PIL image or an array."""
    where = f"picture {number}"
    if isinstance(item, bytes | bytearray | memoryview):
        item = open_picture(bytes(item), where)
    elif isinstance(item, str | os.PathLike):
        where = f"{where}, {os.fspath(item)!s},"
        item = open_picture(_read_file(item, where), where.rstrip(","))
    elif hasattr(item, "read") and not isinstance(item, Image.Image):
        data = item.read(MAX_MEMBER_BYTES + 1)
        if not isinstance(data, bytes) or len(data) > MAX_MEMBER_BYTES:
            raise InputError(f"{where} is an open file of text, or of more than {MAX_MEMBER_BYTES:,} bytes.")
        item = open_picture(data, where)
    elif isinstance(item, Image.Image):
        item = _loaded(item, where)
    if isinstance(item, Image.Image):
        return _picture(item, channels, size)
    if hasattr(item, "__array__") and not isinstance(item, np.ndarray | Tensor):
        item = np.asarray(item)
    if isinstance(item, Tensor):
        item = _dense(item)
    if isinstance(item, list | tuple):
        item = np.asarray(item)
    if not isinstance(item, np.ndarray | Tensor) or item.ndim not in (2, 3):
        shape = list(item.shape) if hasattr(item, "shape") else type(item).__name__
        raise InputError(f"{where} should be a path, a PIL image or an array [H, W], [H, W, C] or [C, H, W]: {shape}.")
    return _batch(item[None], channels, size)


def _read_file(path: str | os.PathLike[Any], where: str) -> bytes:
    try:
        place = expanded(os.fsdecode(path))
        if not stat.S_ISREG(place.stat().st_mode):  # reading a pipe would wait for ever
            raise InputError(f"{where} cannot be read: it is no regular file.")
        with place.open("rb") as file:
            data = file.read(MAX_MEMBER_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:  # no such file, a zero in the name, no such user's home
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if len(data) > MAX_MEMBER_BYTES:
        raise InputError(f"{where} has more than {MAX_MEMBER_BYTES:,} bytes; no more was read.")
    return data


def _loaded(picture: Image.Image, where: str) -> Image.Image:
    try:
        picture.load()
    except Exception as error:  # Pillow's decoders raise many kinds for damaged bytes
        raise InputError(f"{where} is not a readable picture ({error}).") from error
    return upright(picture)


def _picture(picture: Image.Image, channels: int, size: int) -> Pictures:
    """A PIL image, by the way that arrays of its numbers go."""
    if channels not in (1, 3):
        raise InputError(f"the encoder takes {channels} channels; give arrays [n, {channels}, H, W].")
    if is_deep(picture):
        values = deep_values(picture)
        part = _batch(values[None], channels, size)
        ranges = torch.tensor([deep_range(values)], dtype=torch.float64)
        return Pictures(**{**vars(part), "kinds": torch.tensor([DEEP]), "ranges": ranges, "shape": None})
    picture = flattened(picture, size)
    if picture.mode not in ("1", "L", "RGB"):
        try:
            picture = picture.convert("RGB")
        except ValueError as error:
            raise InputError(f"the colour mode {picture.mode} cannot become grey or RGB; save it as RGB.") from error
    part = _batch(np.asarray(picture)[None], channels, size)
    kind = UNIT if picture.mode == "1" else EIGHT
    return Pictures(**{**vars(part), "kinds": torch.tensor([kind]), "shape": None})


def _batch(given: np.ndarray | Tensor, channels: int, size: int) -> Pictures:
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
