"""Layers that keep running averages, used as they stand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from metagvae.encoders.norm import Norm2d


def averaging_layers(module: nn.Module) -> list[nn.Module]:
    """The layers that keep running averages."""
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, Norm2d | _BatchNorm) and getattr(layer, "running_mean", None) is not None
    ]


@contextmanager
def averages_as_they_stand(module: nn.Module) -> Iterator[None]:
    """Within it, layers with running averages use them and leave them alone, in training too.

    One task's batch statistics would make an inner step on another function than the one asked later.
    """
    layers = averaging_layers(module)
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.training = training
