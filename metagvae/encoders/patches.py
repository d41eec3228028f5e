"""Patches of pictures as rows, as a dictionary sees them: plain, or of even contrast and whitened."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError

CONTRAST_FLOOR = 10 / 255**2  # added to a patch's variance, so that a flat patch stays flat
WHITENING_FLOOR = 0.1  # added to the variances before they are divided by, in units of their mean


class Patches(nn.Module):
    """Square patches ``[P, C * side * side]`` of pictures, by default as they are.

    Args:
        channels, size: of the pictures.
        side: of a patch in pixels.
        stride: pixels between patches.
        pad: empty pixels around the picture.
        whiten: subtract each patch's mean and divide by its contrast, then subtract the mean patch and multiply by a
            whitening matrix that keeps the patches' look (ZCA), both found by `fit`; as Coates & Ng prepare colour
            patches (AISTATS 2011, section 3.2.1).

    Raises:
        InputError: if a patch does not fit into the picture with its border.

    Example:
        >>> import torch
        >>> from metagvae.encoders.patches import Patches
        >>> patches = Patches(channels=1, size=28, side=9, stride=2, pad=4)
        >>> patches.places, patches(torch.rand(3, 1, 28, 28)).shape
        (14, torch.Size([588, 81]))
    """

    mean: Tensor
    whitener: Tensor

    def __init__(self, channels: int, size: int, side: int, stride: int = 1, pad: int = 0, whiten: bool = False):
        super().__init__()
        if side > size + 2 * pad:
            raise InputError(
                f"encoder.side must be at most the picture's {size} pixels and its border of {pad} on both sides; "
                f"received {side}."
            )
        self.side, self.stride, self.pad, self.whiten = side, stride, pad, whiten
        self.places = (size + 2 * pad - side) // stride + 1
        self.length = channels * side * side
        if whiten:
            self.register_buffer("mean", torch.zeros(self.length))
            self.register_buffer("whitener", torch.eye(self.length))

    def forward(self, images: Tensor) -> Tensor:
        """Rows ``[B * places * places, C * side * side]`` of pictures ``[B, C, size, size]`` in [0, 1], row by row."""
        columns = F.unfold(images, self.side, padding=self.pad, stride=self.stride)
        return self._prepared(columns.transpose(1, 2).reshape(-1, self.length))

    def _prepared(self, rows: Tensor) -> Tensor:
        if not self.whiten:
            return rows
        rows = _even(rows)
        return (rows - self.mean.to(rows.dtype)) @ self.whitener.to(rows.dtype)

    @torch.no_grad()
    def drawn(self, images: Tensor, per_image: int, generator: torch.Generator) -> Tensor:
        """So many patches of each picture from places drawn evenly, at any pixel: rows ``[B * per_image, length]``."""
        padded = F.pad(images, (self.pad,) * 4)
        span = padded.shape[-1] - self.side + 1
        corners = torch.randint(span, (2, len(images), per_image), generator=generator).to(images.device)
        steps = torch.arange(self.side, device=images.device)
        rows = (corners[0][..., None] + steps)[:, :, None, :, None]
        columns = (corners[1][..., None] + steps)[:, :, None, None, :]
        which = torch.arange(len(images), device=images.device)[:, None, None, None, None]
        channels = torch.arange(images.shape[1], device=images.device)[None, None, :, None, None]
        return self._prepared(padded[which, channels, rows, columns].reshape(-1, self.length))

    @torch.no_grad()
    def fit(self, images: Tensor, generator: torch.Generator, per_image: int = 20) -> None:
        """Finds the mean and the whitening matrix of patches of pictures ``[B, C, size, size]``."""
        if not self.whiten:
            return
        self.mean.zero_()
        self.whitener.copy_(torch.eye(self.length))
        rows = self.drawn(images, per_image, generator).double()
        mean = rows.mean(0)
        values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        floor = WHITENING_FLOOR * values.mean()
        self.mean.copy_(mean)
        self.whitener.copy_((vectors * (values.clamp(min=0) + floor).rsqrt()) @ vectors.T)


def _even(rows: Tensor) -> Tensor:
    """Patches without their mean, divided by their contrast."""
    centred = rows - rows.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + CONTRAST_FLOOR).sqrt()
