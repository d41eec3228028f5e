"""Digits: scikit-learn's bundled handwritten digits, a small test set that needs no download."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from episodes.bank import ImageBank
from episodes.datasets.base import DATASETS, Dataset
from episodes.errors import InputError

_MARGIN = 1 / 7  # of the side, left black all round: 4 pixels of 28, as MNIST has
_THRESHOLD, _SOFTNESS = 0.62, 0.4  # of full ink: what is half covered, and how wide the edge's ramp is


@DATASETS.register
@dataclass(frozen=True)
class Digits(Dataset):
    """The 1,797 test pictures of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak, 1998).

    A test set only: it has 10 classes and no splits by class. The 8 x 8 counts of ink (0 to 16) are enlarged linearly
    and nothing else is done to them, as the classifier does with anybody's pictures: a thick, foggy stroke that fills
    the frame. Ink bright on black, grey, 28 x 28 unless ``size`` says otherwise. Nothing is read from ``root``.

    Args:
        redrawn: enlarge inside a black margin instead, by bicubic interpolation, and steepen the edges, so that strokes
            look like those of Omniglot and glyphs. Easier by far: the error on them is not that on digits as they come.
    """

    name = "digits"
    default_size = 28
    reads_root = False
    licence = "CC BY 4.0 (UCI Machine Learning Repository, shipped with scikit-learn)"

    redrawn: bool = False

    def load_split(self, split: str) -> ImageBank:
        if split != "test":
            raise InputError(
                f"the data set 'digits' is test-only; it has no {split} split. Train on glyphs or omniglot "
                "and evaluate on the test split of digits."
            )
        from sklearn.datasets import load_digits

        bunch = load_digits()
        counts = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
        ink = self._redrawn(counts) if self.redrawn else self._enlarged(counts)
        images = ink.mul(255).round().to(torch.uint8)
        target = torch.from_numpy(bunch.target)
        return ImageBank.from_classes(
            [(str(digit), images[target == digit]) for digit in range(10)],
            dataset=f"{self.name}-redrawn" if self.redrawn else self.name,
            split=split,
            polarity="ink",
        )

    def _enlarged(self, counts: Tensor) -> Tensor:
        return F.interpolate(counts, (self.side, self.side), mode="bilinear", antialias=True, align_corners=False)

    def _redrawn(self, counts: Tensor) -> Tensor:
        inner = self.side - 2 * round(_MARGIN * self.side)
        # the source's own border is padded with black first: interpolation must not smear its edge pixels
        padded = F.pad(counts, (1, 1, 1, 1))
        large = F.interpolate(padded, (round(inner * 10 / 8),) * 2, mode="bicubic", align_corners=False)
        ink = ((large - _THRESHOLD) / _SOFTNESS + 0.5).clamp(0, 1)
        gap = self.side - ink.shape[-1]
        return F.pad(ink, (gap // 2, gap - gap // 2) * 2)
