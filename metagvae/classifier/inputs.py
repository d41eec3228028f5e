"""Images of any kind as `Pictures` of an encoder: paths, PIL images, bytes, open files, arrays, rows of numbers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from episodes import InputError
from episodes.paths import expanded
from episodes.untrusted.archives import MAX_MEMBER_BYTES
from episodes.untrusted.sources import (
    check_numbers,
    decode,
    deep_range,
    deep_values,
    flattened,
    is_deep,
    open_picture,
    upright,
)
from metagvae.classifier.arrays import Shape, batch, check_several, dense
from metagvae.classifier.pictures import DEEP, EIGHT, UNIT, Pictures


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
        given = dense(given)
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
    check_several(given, channels * size * size, like, first)
    return batch(given, channels, size)


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
        item = dense(item)
    if isinstance(item, list | tuple):
        item = np.asarray(item)
    if not isinstance(item, np.ndarray | Tensor) or item.ndim not in (2, 3):
        shape = list(item.shape) if hasattr(item, "shape") else type(item).__name__
        raise InputError(f"{where} should be a path, a PIL image or an array [H, W], [H, W, C] or [C, H, W]: {shape}.")
    return batch(item[None], channels, size)


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
        decode(picture)
    except Exception as error:  # Pillow's decoders raise many kinds for damaged bytes
        raise InputError(f"{where} is not a readable picture ({error}).") from error
    check_numbers(picture, where)
    return upright(picture)


def _picture(picture: Image.Image, channels: int, size: int) -> Pictures:
    """A PIL image, by the way that arrays of its numbers go."""
    if channels not in (1, 3):
        raise InputError(f"the encoder takes {channels} channels; give arrays [n, {channels}, H, W].")
    if is_deep(picture):
        values = deep_values(picture)
        part = batch(values[None], channels, size)
        ranges = torch.tensor([deep_range(values)], dtype=torch.float64)
        return Pictures(**{**vars(part), "kinds": torch.tensor([DEEP]), "ranges": ranges, "shape": None})
    picture = flattened(picture, size)
    if picture.mode not in ("1", "L", "RGB"):
        try:
            picture = picture.convert("RGB")
        except ValueError as error:
            raise InputError(f"the colour mode {picture.mode} cannot become grey or RGB; save it as RGB.") from error
    part = batch(np.asarray(picture)[None], channels, size)
    kind = UNIT if picture.mode == "1" else EIGHT
    return Pictures(**{**vars(part), "kinds": torch.tensor([kind]), "shape": None})
