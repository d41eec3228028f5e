"""Drawn images beside and below each other on one sheet of paper."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

GAP = 2  # pixels between images, before they are enlarged


def sheet(images: Tensor, polarity: str) -> Tensor:
    """Images ``[rows, columns, C, H, W]`` in [0, 1] on one white sheet ``[height, width, C]``, ink dark."""
    shown = images.detach().float().cpu().nan_to_num().clamp(0, 1)
    if shown.shape[2] not in (1, 3):
        shown = shown.mean(2, keepdim=True)
    if polarity == "ink":
        shown = 1 - shown
    rows, columns, channels, height, width = shown.shape
    framed = F.pad(shown.flatten(0, 1), (0, GAP, 0, GAP), value=1.0)
    framed = framed.view(rows, columns, channels, height + GAP, width + GAP)
    return framed.permute(0, 3, 1, 4, 2).reshape(rows * (height + GAP), columns * (width + GAP), channels)
