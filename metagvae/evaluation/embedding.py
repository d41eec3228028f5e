"""Each image's feature, computed once, in chunks that fit the device."""

from __future__ import annotations

import sys
from typing import NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from episodes import ImageBank, to_float
from metagvae.compute.device import Device
from metagvae.compute.processes import ranks

ROWS = 8192  # features in flight at a time, or pictures of 28 x 28; of larger ones as many fewer
GPU_TIMES = 4  # on a GPU, so many times as much of a frozen encoder at a time: a launch costs as much as its work
_PATIENCE = 5.0  # seconds before anything is shown


def pictures_at_once(bank: ImageBank) -> int:
    """How many pictures to run through a network at a time, by their size."""
    _, height, width = bank.image_shape
    return max(64, ROWS * 28 * 28 // (height * width))


def embedded_at_once(bank: ImageBank, device: Device) -> int:
    """How many pictures `embed_bank` runs through a network at a time.

    On a processor few, so that a layer's maps are still in the nearest caches when the next one reads them.
    """
    if device.device.type == "cuda":
        return pictures_at_once(bank) // 8 * GPU_TIMES
    _, height, width = bank.image_shape
    return max(8, ROWS // 64 * 28 * 28 // (height * width))


def chunk_times(device: Device) -> int:
    """How many times a processor's chunk this device takes of a frozen encoder's pictures and features."""
    return GPU_TIMES if device.device.type == "cuda" else 1


@torch.no_grad()
def embed_bank(encoder: nn.Module, bank: ImageBank, device: Device, progress: bool = False) -> Tensor:
    """float32 ``[M, D]``: each picture's feature, computed once, the encoder in evaluation mode."""
    bar = progress_bar("images", len(bank), progress)

    def embed(start: int, stop: int) -> Tensor:
        images = to_float(bank.images[start:stop].to(device.device, non_blocking=True))
        with device.precision():
            features: Tensor = encoder(device.layout(images)).float()
        if device.device.type == "cuda":
            features = features.clone()  # a compiled encoder replays a graph, which writes over its last answer
        bar.update(ranks().size * len(features))
        return features

    with bar:
        return ranks().split(len(bank), embedded_at_once(bank, device), embed, device.device)


def progress_bar(what: str, total: int, progress: bool) -> tqdm[NoReturn]:
    """How far something is, on stderr of the main process; in a file a line now and then."""
    shown, live = progress and ranks().main, sys.stderr is not None and sys.stderr.isatty()
    often = 0.5 if live else _PATIENCE * 4
    return tqdm(
        desc=what, total=total, disable=not shown, leave=False, delay=_PATIENCE, mininterval=often, file=sys.stderr
    )
