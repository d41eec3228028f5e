"""The networks that rows share: ours, and the same ones as a peer's user would write them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metagvae.compute.device import Device
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.training.captured_step import WARM, CudaGraph, Recording, Terms


def conv4_encoder(width: int, norm: str) -> Encoder:
    """Our Conv-4 for pictures of 28 x 28, its feature the last feature map."""
    return Encoder(EncoderConfig("conv4", width, norm=norm, latent=2, features=["backbone"]))


class PlainConv4(nn.Module):
    """Conv-4 of torch's own layers: convolution, batch norm, ReLU, max pooling, four times.

    Args:
        width: feature maps.
        running: whether batch norm keeps running averages; without, it always takes the batch's statistics.
        pool_first: pool before the ReLU, as ours does: the same function for less work.
    """

    def __init__(self, width: int, running: bool = True, pool_first: bool = False) -> None:
        super().__init__()
        last = (nn.MaxPool2d(2), nn.ReLU()) if pool_first else (nn.ReLU(), nn.MaxPool2d(2))
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(width if number else 1, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width, track_running_stats=running),
                    *last,
                )
                for number in range(4)
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 1, 28, 28]`` to ``[B, width]``."""
        maps: Tensor = self.blocks(images)
        return maps.flatten(1)

    def copy_from(self, encoder: Encoder) -> PlainConv4:
        """Takes over the weights of our Conv-4."""
        theirs = [p for layer in encoder.backbone.modules() for p in layer.parameters(recurse=False)]
        with torch.no_grad():
            for mine, weight in zip(self.parameters(), theirs, strict=True):
                mine.copy_(weight)
        return self


def optimizer_of(module: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that every way of a row uses, ours and the baseline's."""
    on_gpu = next(module.parameters()).is_cuda  # where it can be part of a graph
    return torch.optim.AdamW(module.parameters(), lr=1e-4, fused=on_gpu or None, capturable=on_gpu)


def stepping(module: nn.Module, loss: Callable[[], Tensor], device: Device | None = None) -> Callable[[], None]:
    """One optimiser step at each call: loss, gradients, update.

    Args:
        device: in whose precision the loss is computed; None for float32.
    """
    optimizer = optimizer_of(module)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        if device is None:
            value = loss()
        else:
            with device.precision():
                value = loss()
        value.backward()
        optimizer.step()

    return step


def captured(step: Callable[[], None], device: Device, recording: Recording | None = None) -> Callable[[], None]:
    """The step as training takes it there: on a GPU recorded once and replayed, elsewhere as it is.

    Args:
        step: the same work on the same memory at each call.
        recording: where to record; a CUDA graph on a GPU if None.
    """
    if recording is None:
        if device.device.type != "cuda":
            return step
        recording = CudaGraph()

    def work() -> Terms:
        step()
        return {}

    for _ in range(WARM):
        recording.warm(work)
    recording.record(work)
    return recording.replay


class Classifier(nn.Module):
    """A backbone and a linear layer: plain supervised training."""

    def __init__(self, encoder: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(features, classes)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.head(self.encoder(images)).float(), labels)
