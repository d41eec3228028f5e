"""Decoders: latents to picture logits. A new one is a class under ``@DECODERS.named(NAME)``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes.registry import Registry
from metagvae.encoders.backbones import ding_side
from metagvae.encoders.norm import Norm2d

DECODERS: Registry[Callable[..., Any]] = Registry("decoder")


@DECODERS.named("upsampling")
class Decoder(nn.Module):
    """Latent ``[B, latent]`` to picture logits ``[B, C, size, size]``: a linear layer, two upsamplings by 2.

    Args:
        latent: units of the latent.
        channels, size: of the pictures.
        width: feature maps before the last layer; twice as many before that.

    Example:
        >>> import torch
        >>> from metagvae import Decoder
        >>> Decoder(latent=6, channels=1, size=28)(torch.zeros(2, 6)).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(self, latent: int, channels: int, size: int, width: int = 32) -> None:
        super().__init__()
        self.size, self.start, self.width = size, math.ceil(size / 4), width
        self.first = nn.Linear(latent, 2 * width * self.start**2)
        self.middle = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.last = nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.first(z)).view(-1, 2 * self.width, self.start, self.start)
        logits: Tensor = self.last(F.relu(self.middle(x)))
        return logits[..., : self.size, : self.size]


@DECODERS.named("ding")
class DingDecoder(nn.Module):
    """Latent ``[B, latent]`` to picture logits ``[B, C, size, size]``: `DingConv` mirrored.

    The decoder of the Guided-VAE authors' MNIST code (Ding et al., CVPR 2020), where ``width`` is 64.

    Args:
        latent: units of the latent.
        channels, size: of the pictures; the side is at least 22.
        width: feature maps before the last layer; twice and four times as many before that.
    """

    def __init__(self, latent: int, channels: int, size: int, width: int = 64) -> None:
        super().__init__()
        self.start, self.width = ding_side(size), width
        self.first = nn.Linear(latent, 4 * width * self.start**2)
        self.middle = nn.ModuleList(
            [nn.ConvTranspose2d(4 * width, 2 * width, 5), nn.ConvTranspose2d(2 * width, width, 5)]
        )
        self.last = nn.ConvTranspose2d(width, channels, 6, stride=2, output_padding=size % 2)

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.first(z)).view(-1, 4 * self.width, self.start, self.start)
        for layer in self.middle:
            x = F.relu(layer(x))
        logits: Tensor = self.last(x)
        return logits


@DECODERS.named("patches")
class PatchDecoder(nn.Module):
    """Latent ``[B, latent]`` to picture logits ``[B, C, size, size]``: `Patches` mirrored.

    Args:
        latent: units of the latent.
        channels, size: of the pictures.
        width: features of the 4x4 patches of pixels; twice and four times as many before that.
    """

    def __init__(self, latent: int, channels: int, size: int, width: int = 32) -> None:
        super().__init__()
        self.size, self.start, self.width = size, math.ceil(size / 16), width
        self.first = nn.Linear(latent, 4 * width * self.start**2)
        self.middle = nn.ModuleList(
            [
                nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2),
                nn.ConvTranspose2d(2 * width, width, 2, stride=2),
            ]
        )
        self.last = nn.ConvTranspose2d(width, channels, 4, stride=4)

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.first(z)).view(-1, 4 * self.width, self.start, self.start)
        for layer in self.middle:
            x = F.relu(layer(x))
        logits: Tensor = self.last(x)
        return logits[..., : self.size, : self.size]


class _Residual(nn.Module):
    """``[B, maps, H, W]`` to the same: two 3x3 convolutions beside the identity."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(maps, maps, 3, padding=1), nn.Conv2d(maps, maps, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)  # close to the identity at first, so that depth costs nothing

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(F.relu(self.first(F.relu(x))))
        return x + change


@DECODERS.named("residual")
class ResidualDecoder(nn.Module):
    """Latent ``[B, latent]`` to picture logits ``[B, C, size, size]``: residual blocks at a quarter and half the side.

    One block (He et al., CVPR 2016) of ``4 * width`` feature maps at a quarter of the pictures' side, two of
    ``2 * width`` at half of it, then one transposed convolution to full size: most of the weights work where a map is
    small. Without normalisation, so that a picture does not depend on the others of its batch.

    Args:
        latent: units of the latent.
        channels, size: of the pictures.
        width: half the feature maps before the last layer.

    Example:
        >>> import torch
        >>> from metagvae.vae.decoders import ResidualDecoder
        >>> ResidualDecoder(latent=6, channels=1, size=28, width=8)(torch.zeros(2, 6)).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(self, latent: int, channels: int, size: int, width: int = 24) -> None:
        super().__init__()
        self.size, self.start, self.width = size, math.ceil(size / 4), width
        self.first = nn.Linear(latent, 4 * width * self.start**2)
        self.at_quarter = _Residual(4 * width)
        self.grow = nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1)
        self.at_half = nn.Sequential(_Residual(2 * width), _Residual(2 * width))
        self.last = nn.ConvTranspose2d(2 * width, channels, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(z).view(-1, 4 * self.width, self.start, self.start)
        x = self.at_half(self.grow(F.relu(self.at_quarter(x))))
        logits: Tensor = self.last(F.relu(x))
        return logits[..., : self.size, : self.size]


@DECODERS.named("infogan")
class InfoGANDecoder(nn.Module):
    """Latent ``[B, latent]`` to picture logits ``[B, C, size, size]``: transposed convolutions, batch normalised.

    The generator of InfoGAN-CR (Lin et al., ICML 2020): a linear layer, then a doubling of the side at each 4x4
    transposed convolution. Normalisation follows the activation, and in evaluation takes running averages, so that an
    image does not depend on the others of its batch.

    Args:
        latent: units of the latent.
        channels, size: of the pictures.
        width: feature maps before the last layer; twice as many where the side is an eighth.

    Example:
        >>> import torch
        >>> from metagvae.vae.decoders import InfoGANDecoder
        >>> InfoGANDecoder(latent=6, channels=1, size=28, width=8)(torch.zeros(2, 6)).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(self, latent: int, channels: int, size: int, width: int = 32) -> None:
        super().__init__()
        self.size, self.start, self.width = size, math.ceil(size / 8), width
        self.first = nn.Linear(latent, 2 * width * self.start**2)
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(inside, width, 4, stride=2, padding=1) for inside in (2 * width, width)
        )
        self.norms = nn.ModuleList(Norm2d(maps) for maps in (2 * width, width, width))
        self.last = nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.norms[0](F.relu(self.first(z)).view(-1, 2 * self.width, self.start, self.start))
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            x = norm(F.leaky_relu(layer(x), 0.2))
        logits: Tensor = self.last(x)
        return logits[..., : self.size, : self.size]
