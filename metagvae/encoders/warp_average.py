"""WarpAverage: features averaged over a few mild warps of each picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from episodes import AugmentConfig, InputError, augment

MOST_WARPS = 1000
MILD = AugmentConfig(rotation=8, scale=0.1, shear=0.1, translation=0.05)


class WarpAverage(nn.Module):
    """An encoder whose feature of a picture is the mean over the picture and ``warps`` warped copies of it.

    The warps are the same for every picture and on every device, so a picture's feature depends on that picture
    alone: inductive, whatever the encoder's norm allows.

    Args:
        encoder: pictures ``[B, C, H, W]`` to features ``[B, D]``.
        warps: how many copies beside the picture itself.
        config: how far a copy may be from the picture.
        mirror: make every second copy, the first among them, of the mirror image: for photographs, whose class a mirror
            leaves as it is.
    """

    def __init__(self, encoder: nn.Module, warps: int, config: AugmentConfig = MILD, mirror: bool = False) -> None:
        super().__init__()
        if not 1 <= warps <= MOST_WARPS:
            raise InputError(f"warps to average over must be between 1 and {MOST_WARPS:,}; received {warps}.")
        self.encoder, self.warps, self.config, self.mirror = encoder, warps, config, mirror

    @property
    def features(self) -> list[str]:
        return getattr(self.encoder, "features", ["all"])

    def forward(self, images: Tensor) -> Tensor:
        total: Tensor = self.encoder(images)
        for warp in range(self.warps):
            # one draw for all: the pictures become channels of one
            copied = images.flip(-1) if self.mirror and warp % 2 == 0 else images
            one = copied.flatten(0, 1).unsqueeze(0)
            stacked = augment(one, self.config, torch.Generator().manual_seed(warp))
            total = total + self.encoder(stacked.squeeze(0).view_as(images))
        return total / (1 + self.warps)
