"""MNIST with three attributes of each image: its digit, its slant and the weight of its stroke."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from episodes.bank import Attribute, ImageBank
from episodes.batch import to_float
from episodes.datasets.base import DATASETS
from episodes.datasets.mnist import MNIST

# thirds of the 60,000 training images
SLANT_THIRDS = (-0.010, 0.224)  # tangent
WEIGHT_THIRDS = (2.37, 2.81)  # pixels


def slant(images: Tensor) -> Tensor:
    """Tangent of the slant of images ``[B, 1, H, W]`` in [0, 1], ``[B]``; positive leans to the right.

    The regression of x on y over the ink: ``-mu11 / mu02``, y pointing down.
    """
    ink = images[:, 0]
    across, down = (torch.arange(side, dtype=ink.dtype) for side in (ink.shape[2], ink.shape[1]))
    total = ink.sum((1, 2)).clamp(min=1e-6)
    dx = across[None, None] - ((ink * across).sum((1, 2)) / total)[:, None, None]
    dy = down[None, :, None] - ((ink * down[:, None]).sum((1, 2)) / total)[:, None, None]
    return -(ink * dx * dy).sum((1, 2)) / (ink * dy.square()).sum((1, 2)).clamp(min=1e-6)


def stroke_weight(images: Tensor) -> Tensor:
    """Width of the stroke in pixels, ``[B]``: twice the ink over the length of its edge.

    The length is the total variation, which blur does not change.
    """
    padded = F.pad(images[:, 0], (1, 1, 1, 1))
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    edge = (across.square() + down.square()).sqrt().sum((1, 2))
    return 2 * images.sum((1, 2, 3)) / edge.clamp(min=1e-6)


def thirds(values: Tensor, limits: tuple[float, float]) -> Tensor:
    """0, 1 or 2, int64: the lower, middle or upper third."""
    return (values > limits[0]).long() + (values > limits[1]).long()


@DATASETS.register
@dataclass(frozen=True)
class MNISTStyles(MNIST):
    """MNIST whose 90 classes are digit, third of the slant and third of the stroke's weight.

    The attributes are ``digit``, and ``slant`` and ``weight`` of two values, the outer thirds; the middle third is
    unknown (below zero), so that no image lies on the border between two values. For a VAE that is taught several
    attributes at once.

    Args:
        root: a folder with ``mnist.npz``, as `MNIST` takes it; None looks where MNIST is.
    """

    name = "mnist-styles"

    def load_split(self, split: str) -> ImageBank:
        plain = MNIST(root=self.root, held_out=self.held_out).load_split(split)
        images = to_float(torch.as_tensor(plain.images))
        leaning, bold = thirds(slant(images), SLANT_THIRDS), thirds(stroke_weight(images), WEIGHT_THIRDS)
        kinds = (plain.labels * 3 + leaning) * 3 + bold
        present, order = kinds.unique(), kinds.argsort(stable=True)
        counts = torch.bincount(kinds, minlength=90)[present]
        digit, lean, weight = present // 9, present // 3 % 3, present % 3
        outer = torch.tensor([0, -1, 1])
        bank = MNIST(root=self.root, size=self.size, held_out=self.held_out).load_split(split) if self.size else plain
        return ImageBank(
            images=torch.as_tensor(bank.images)[order],
            offsets=torch.cat((counts.new_zeros(1), counts.cumsum(0))),
            class_names=tuple(
                f"{d} {('left', 'upright', 'right')[s]} {('thin', 'medium', 'bold')[w]}"
                for d, s, w in zip(digit.tolist(), lean.tolist(), weight.tolist(), strict=True)
            ),
            dataset=self.name,
            split=split,
            polarity="ink",
            attributes={
                "digit": Attribute(digit, tuple(map(str, range(10)))),
                "slant": Attribute(outer[lean], ("left", "right")),
                "weight": Attribute(outer[weight], ("thin", "bold")),
            },
        )
