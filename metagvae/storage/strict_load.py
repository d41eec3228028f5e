"""Networks built only once their size is known: sketched first where nothing is allocated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from episodes import InputError
from episodes.torch_defaults import plain_defaults

MAX_NUMBERS = 2**27  # half a gigabyte in float32, ten times a ResNet-12
M = TypeVar("M", bound=nn.Module)


@plain_defaults()
def build(make: Callable[[], M], where: str, tensors: Mapping[str, Tensor] | None = None) -> M:
    """``make()``, after a sketch of it on torch's meta device was found to have an allowed size.

    Args:
        where: what asks for it, in the error.
        tensors: weights that it must fit, by name.

    Raises:
        InputError: if it does not fit ``tensors`` or, without these, has more than `MAX_NUMBERS` numbers; nothing was
            allocated.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        sketch = make().state_dict()
    numbers = sum(value.numel() for value in sketch.values())
    if tensors is not None:  # of a file as large as the network: no forged number makes it larger
        check_fit(sketch, tensors, where)
    elif numbers > MAX_NUMBERS:
        raise InputError(
            f"{where} describes a network of {numbers:,} numbers; at most {MAX_NUMBERS:,} are built. Lower its width, "
            "its latent or the pictures' size."
        )
    return make()


def check_fit(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """Checks the names, shapes and kinds of weights against a state dict; values are not looked at.

    Raises:
        InputError: naming what is missing, unexpected, of another shape, or integers for real numbers.
    """
    shared = sorted(wanted.keys() & tensors.keys())
    found = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {list(tensors[name].shape)} instead of {list(wanted[name].shape)}"
            for name in shared
            if tensors[name].shape != wanted[name].shape
        ],
        "of another type": [
            f"{name} {tensors[name].dtype} instead of {wanted[name].dtype}"
            for name in shared
            if tensors[name].is_floating_point() != wanted[name].is_floating_point() or tensors[name].is_complex()
        ],
    }
    parts = [
        f"{label}: {', '.join(name[:100] for name in names[:5])}{' ...' if len(names) > 5 else ''}"
        for label, names in found.items()
        if names
    ]
    if parts:
        raise InputError(
            f"the weights of {where} do not fit this module; {'; '.join(parts)}. To bring weights of another "
            "code base in, use `metagvae import-encoder`."
        )


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Loads tensors into a module; every name and shape must match, and every number be finite there too.

    Raises:
        InputError: naming what does not; the module is as it was.
    """
    own = module.state_dict()
    check_fit(own, tensors, where)
    broken = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise InputError(f"the weights of {where} hold numbers that are not finite, in {broken[0]}; fetch them again.")
    for name, value in tensors.items():
        kind = own[name].dtype
        if value.dtype != kind and not bool(torch.isfinite(value.to(kind)).all()):
            raise InputError(
                f"the weights of {where} hold numbers too large for {kind}, as which {name[:100]} is kept: they would "
                f"be infinite. Give weights of at most {torch.finfo(kind).max:.1e}."
            )
    module.load_state_dict(dict(tensors))
