"""Normal noise that is a function of the image: the same alone, in any batch, on any device, in any process."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from episodes.counter_rng import fold, mix


def image_keys(images: Tensor) -> Tensor:
    """A key per image, int64 ``[B]``, of its pixels on a scale of 255, or of its token numbers.

    A sum of hashes in wrapping integers, which no order of adding changes.

    Args:
        images: ``[B, ...]``, in [0, 1] where they are real numbers.
    """
    flat = images.detach().flatten(1)
    levels = (flat.float() * 255).round().long() if flat.is_floating_point() else flat.long()
    places = mix(torch.arange(1, levels.shape[1] + 1, device=levels.device))
    return mix(fold(places, levels).sum(1))


def normal_noise(keys: Tensor, counter: Tensor | int, width: int) -> Tensor:
    """Standard normal numbers, float64 ``[..., width]``, a pure function of a key and a counter.

    Args:
        keys: int64 ``[...]``.
        counter: of the draw; another one gives independent numbers.
        width: how many per key.
    """
    each = fold(fold(keys, counter).unsqueeze(-1), torch.arange(2 * width, device=keys.device))
    uniform = ((each >> 11) & ((1 << 53) - 1)).double().add(0.5) * 2.0**-53
    radius, angle = (-2 * uniform[..., :width].log()).sqrt(), 2 * math.pi * uniform[..., width:]
    return radius * angle.cos()
