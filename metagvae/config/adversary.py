"""The section of a config that trains a generator against a critic instead of a VAE."""

from __future__ import annotations

import math
from dataclasses import dataclass

from episodes import InputError


@dataclass
class AdversarySection:
    """InfoGAN, and the contrastive regulariser of InfoGAN-CR (Lin et al., ICML 2020).

    Args:
        codes: weight of reading an image's codes back, lambda in the paper.
        contrast: weight of telling which code two images share, alpha in the paper; 0 for InfoGAN alone.
        start: share of the steps after which that weight is in force; before it no pair is drawn.
        gap: least distance of the codes that two images do not share, in [0, 2).
        width: feature maps of the network that tells which code is shared.
        generator_rate: multiplies the generator's learning rate, in (0, 1000].

    Example:
        >>> from metagvae.config import AdversarySection
        >>> section = AdversarySection(contrast=2.0, start=0.9)
    """

    codes: float = 0.05
    contrast: float = 0.0
    start: float = 0.9
    gap: float = 0.0
    width: int = 32
    generator_rate: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.codes < math.inf and 0 <= self.contrast < math.inf and 0 < self.generator_rate <= 1e3):
            raise InputError(
                "adversary needs finite weights codes and contrast >= 0, and a generator_rate in (0, 1000]; received "
                f"{self.codes}, {self.contrast} and {self.generator_rate}."
            )
        if not (0 <= self.start <= 1 and 0 <= self.gap < 2 and 1 <= self.width <= 1024):
            raise InputError(
                "adversary needs start in [0, 1], gap in [0, 2) and width in [1, 1024]; received "
                f"{self.start}, {self.gap} and {self.width}."
            )
