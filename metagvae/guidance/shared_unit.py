"""Pairs of latents that share one unit, and the network that tells from their images which (Lin et al., ICML 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes.batch_share import uniform
from metagvae.encoders.backbones import InfoGANConv
from metagvae.encoders.norm import full_precision
from metagvae.encoders.spectral_norm import SpectralLinear
from metagvae.encoders.units import Units


class SharedUnit(nn.Module):
    """The contrastive regulariser: how hard it is to tell which unit two images share.

    The network and whoever draws the images minimise the same cross entropy, so there is nothing to balance.

    Args:
        units: latent unit numbers, one of which a pair shares.
        latent: units in all; those not among ``units`` are shared by every pair.
        channels, size: of the images.
        width: of the network's trunk.
        gap: least distance of the units that a pair does not share, of draws from [-1, 1]; 0 takes draws as they are.
    """

    def __init__(
        self, units: Sequence[int], latent: int, channels: int, size: int, width: int = 32, gap: float = 0.0
    ) -> None:
        super().__init__()
        self.units, self.gap = Units(units), gap
        self.trunk = InfoGANConv(2 * channels, width)
        self.head = SpectralLinear(self.trunk.out_channels * self.trunk.side(size) ** 2, len(units))
        always = torch.ones(latent, dtype=torch.bool)
        always[list(units)] = False
        self.register_buffer("always", always, persistent=False)

    always: Tensor

    def pairs(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents ``[B, latent]`` twice, made to share one unit each, and its place among the units, int64 ``[B]``."""
        count = len(self.units.numbers)
        shared = (uniform(len(one), device=one.device) * count).long().clamp(max=count - 1)
        same = self.always | F.one_hot(self.units.numbers[shared], one.shape[-1]).bool()
        first, second = one, other
        if self.gap:
            apart = torch.where(one >= other, self.gap / 2, -self.gap / 2)
            first, second = (1 - self.gap / 2) * one + apart, (1 - self.gap / 2) * other - apart
        # what is shared stays as it was drawn, uniform where the draws are
        return torch.where(same, one, first), torch.where(same, one, second), shared

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Logits ``[B, units]`` of images ``[B, C, H, W]`` twice."""
        maps: Tensor = self.trunk(torch.cat((one, other), 1))
        logits: Tensor = full_precision(self.head(maps.flatten(1)))
        return logits
