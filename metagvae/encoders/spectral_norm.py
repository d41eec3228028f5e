"""Layers whose largest singular value is kept at 1 (Miyato et al., ICLR 2018, section 2.1)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes.precision import autocast_off

WARM = 10  # power iterations on the weights that a layer begins with


def _start(weight: Tensor) -> Tensor:
    """A left singular vector of a weight ``[out, ...]``, about that of the largest value, ``[out]``."""
    found = F.normalize(torch.randn(len(weight), device=weight.device), dim=0)
    for _ in range(WARM):
        found = _closer(weight, found)
    return found


@torch.no_grad()
def _closer(weight: Tensor, left: Tensor) -> Tensor:
    """The vector after one power iteration."""
    rows = weight.flatten(1)
    with autocast_off(weight):
        return F.normalize(rows @ F.normalize(left @ rows, dim=0), dim=0)


def normalised(weight: Tensor, left: Tensor) -> Tensor:
    """A weight divided by its largest singular value, as its left singular vector ``[out]`` tells it.

    The value is found in the weight's own precision, wherever the layer computes in bfloat16.
    """
    with autocast_off(weight):
        found: Tensor = weight / torch.linalg.vector_norm(left @ weight.flatten(1))
    return found


class _Spectral(nn.Module):
    """A layer whose weight, as a matrix ``[out, ...]``, has the largest singular value 1.

    The value is followed by one power iteration at each call of `iterate`, which a training step makes once; a call of
    the layer changes nothing.
    """

    weight: Tensor
    left: Tensor

    def begin(self) -> None:
        """Finds the value of the weight that the layer begins with."""
        self.register_buffer("left", _start(self.weight))

    def iterate(self) -> None:
        """One power iteration."""
        self.left.copy_(_closer(self.weight, self.left))

    @torch.no_grad()
    def find(self) -> None:
        """The value anew and exactly, of a weight that did not come here step by step."""
        rows = self.weight.flatten(1).double()
        self.left.copy_(torch.linalg.svd(rows, full_matrices=False).U[:, 0])

    @property
    def normalised(self) -> Tensor:
        """The weight that the layer computes with."""
        return normalised(self.weight, self.left)


class SpectralConv2d(_Spectral, nn.Conv2d):
    """A convolution whose weight, as a matrix ``[out, in * height * width]``, has the largest singular value 1."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.begin()

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self._conv_forward(x, self.normalised, self.bias)
        return maps


class SpectralLinear(_Spectral, nn.Linear):
    """A linear layer whose weight has the largest singular value 1."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.begin()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised, self.bias)


def iterate(module: nn.Module) -> None:
    """One power iteration of each spectral layer of a module that is in training."""
    for layer in module.modules():
        if isinstance(layer, _Spectral) and layer.training:
            layer.iterate()


def find(module: nn.Module) -> None:
    """The largest singular value of each spectral layer anew, once its weights were put in place from elsewhere."""
    for layer in module.modules():
        if isinstance(layer, _Spectral):
            layer.find()
