"""Pictures drawn from known factors: what a disentanglement score is measured on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from episodes.augment import affine_matrix, resample
from episodes.bank import ImageBank
from episodes.batch import to_float
from episodes.errors import InputError


@dataclass(frozen=True)
class Factor:
    """One factor of variation.

    Args:
        name: of the factor.
        size: how many values it takes, numbered from 0.
        ordered: whether neighbouring numbers are neighbouring pictures (an angle, a position), or mere kinds.
    """

    name: str
    size: int
    ordered: bool = True


class FactorPictures(ABC):
    """A picture for every combination of the factors' values."""

    factors: tuple[Factor, ...]

    @abstractmethod
    def render(self, values: Tensor) -> Tensor:
        """float ``[B, C, H, W]`` in [0, 1] of values int64 ``[B, factors]``."""

    def draw(self, count: int, seed: int) -> Tensor:
        """int64 ``[count, factors]``: every combination equally likely."""
        generator = torch.Generator().manual_seed(seed)
        return torch.stack([torch.randint(f.size, (count,), generator=generator) for f in self.factors], -1)


class WarpedPictures(FactorPictures):
    """Given pictures under known affine maps: which picture, rotation, scale, and position are the factors.

    Args:
        bank: one picture of each of ``characters`` classes, evenly spread over the bank, is used.
        characters: how many.
        steps: values of each of the four geometric factors.
        rotation: largest angle in degrees; scale: largest relative change of size; shift: largest fraction of the side.

    Raises:
        InputError: if the bank has too few classes.
    """

    def __init__(
        self,
        bank: ImageBank,
        characters: int = 10,
        steps: int = 8,
        rotation: float = 40.0,
        scale: float = 0.3,
        shift: float = 0.12,
    ) -> None:
        if not 2 <= characters <= bank.num_classes or steps < 2:
            raise InputError(
                f"warped pictures need 2 to {bank.num_classes} characters and 2 steps or more; received {characters} "
                f"and {steps}."
            )
        classes = torch.linspace(0, bank.num_classes - 1, characters).long()
        self.pictures = to_float(bank.images[bank.offsets[:-1][classes]])
        self.rotation, self.scale, self.shift = rotation, scale, shift
        names = ("rotation", "scale", "x", "y")
        self.factors = (Factor("character", characters, False), *(Factor(name, steps) for name in names))

    def render(self, values: Tensor) -> Tensor:
        last = values.new_tensor([f.size - 1 for f in self.factors[1:]])
        angle, size, x, y = (2 * values[:, 1:] / last - 1).unbind(-1)
        log_size = size * math.log1p(self.scale)
        shift = 2 * self.shift * torch.stack((x, y), -1)
        theta = affine_matrix(math.radians(self.rotation) * angle, log_size, log_size, torch.zeros_like(angle), shift)
        pictures = self.pictures[values[:, 0]]
        grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
        return resample(pictures, grid)
