"""Sprites: binary shapes drawn from five known factors, on the grid of dSprites (Matthey et al., 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from episodes.bank import ImageBank
from episodes.datasets.base import DATASETS, Dataset
from episodes.datasets.factors import Factor, FactorPictures

SHAPES = ("square", "ellipse", "heart")
SEEDS = {"train": 0, "validation": 1, "test": 2}


def _inside(shape: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Whether points (u right, v up, ``[B, H, W]``) lie in the shape (``[B]``) of about unit size."""
    square = (u.abs() < 0.8) & (v.abs() < 0.8)
    ellipse = (u / 1.0).square() + (v / 0.6).square() < 1
    w, h = 1.15 * u, 1.15 * v + 0.1
    heart = (w.square() + h.square() - 0.6) ** 3 - w.square() * h**3 < 0
    chosen = shape[:, None, None]
    return torch.where(chosen == 0, square, torch.where(chosen == 1, ellipse, heart))


class SpritePictures(FactorPictures):
    """Every combination of shape 3, scale 6, rotation 40, x 32, y 32: 737,280 binary pictures, drawn when asked for.

    Args:
        size: side of the pictures in pixels.
    """

    factors = (
        Factor("shape", 3, False),
        Factor("scale", 6),
        Factor("rotation", 40),
        Factor("x", 32),
        Factor("y", 32),
    )

    def __init__(self, size: int = 64) -> None:
        self.size = size

    def render(self, values: Tensor) -> Tensor:
        shape, scale, rotation, x, y = values.unbind(-1)
        axis = (torch.arange(self.size, device=values.device) + 0.5) / self.size * 2 - 1
        radius = 0.14 + 0.2 * scale / 5
        angle = 2 * math.pi * rotation / 40
        right = axis - ((x / 31 - 0.5) * 1.0)[:, None]
        up = -axis - ((y / 31 - 0.5) * 1.0)[:, None]
        cos, sin = (f(angle)[:, None, None] / radius[:, None, None] for f in (torch.cos, torch.sin))
        right, up = right[:, None, :], up[:, :, None]
        return _inside(shape, cos * right + sin * up, cos * up - sin * right).float().unsqueeze(1)


@DATASETS.register
@dataclass(frozen=True)
class Sprites(Dataset):
    """Shapes of known scale, rotation and position, like dSprites but drawn here; a class is a shape.

    For pretraining an encoder whose disentanglement is then measured (`metagvae disentangle`). Each split is
    ``count`` pictures drawn evenly from all combinations, by its own seed; so a picture may be in two splits.
    64 x 64 unless ``size`` says otherwise. Nothing is read from ``root``.

    Args:
        count: pictures per split.
    """

    name = "sprites"
    default_size = 64
    reads_root = False
    licence = "MIT (drawn by this package)"

    count: int = 20_000

    def load_split(self, split: str) -> ImageBank:
        pictures = SpritePictures(self.side)
        values = pictures.draw(self.count, SEEDS[split])
        parts = []
        for number, name in enumerate(SHAPES):
            own = values[values[:, 0] == number]
            drawn = [pictures.render(rows).mul(255).to(torch.uint8) for rows in own.split(1000)]
            parts.append((name, torch.cat(drawn)))
        return ImageBank.from_classes(parts, dataset=self.name, split=split, polarity="ink")
