"""Backbones: pictures ``[B, C, H, W]`` to feature maps. A new one is a class under ``@BACKBONES.named(NAME)``."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError
from episodes.registry import Registry
from metagvae.encoders.norm import Norm2d
from metagvae.encoders.spectral_norm import SpectralConv2d

BACKBONES: Registry[Callable[..., Any]] = Registry("backbone")


@BACKBONES.named("conv4")
class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, normalisation, ReLU, 2x2 max pooling.

    Vinyals et al., NeurIPS 2016; Snell et al., NeurIPS 2017. A side of 28 ends at 1, 84 at 5.

    Args:
        channels: of the pictures.
        width: feature maps of every block.
        norm: a policy of `metagvae.encoders.norm.Norm2d`.
    """

    growth: ClassVar[tuple[int, int, int, int]] = (1, 1, 1, 1)

    def __init__(self, channels: int, width: int = 64, norm: str = "running") -> None:
        super().__init__()
        widths = [width * times for times in self.growth]
        self.out_channels = widths[-1]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), Norm2d(outside, norm))
            for inside, outside in pairwise((channels, *widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, out_channels, H // 16, W // 16]``."""
        for block in self.blocks:
            x = F.relu(F.max_pool2d(block(x), 2))  # pooling first is the same and four times less work
        return x

    def side(self, size: int) -> int:
        """Side of the feature map of a picture of side ``size``."""
        return size // 16


@BACKBONES.named("conv4_doubling")
class Conv4Doubling(Conv4):
    """`Conv4` whose blocks have width, 2, 4 and 8 times width feature maps.

    About the proportions of R2D2's network, 96-192-384-512 (Bertinetto et al., ICLR 2019): the early, large maps stay
    cheap and the feature is long. Of width 64 it has 1.55 million weights.
    """

    growth = (1, 2, 4, 8)


@BACKBONES.named("conv4_places")
class Conv4Places(Conv4):
    """`Conv4` of width, 2, 4 and 1 times width feature maps, of which only the first two blocks pool.

    A side of 28 ends at 7, so that the latent is told where a stroke is, not only that there is one: for generators,
    whose characters must survive their rebuilding.
    """

    growth = (1, 2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, width, H // 4, W // 4]``."""
        for number, block in enumerate(self.blocks):
            x = F.relu(F.max_pool2d(block(x), 2) if number < 2 else block(x))
        return x

    def side(self, size: int) -> int:
        return size // 4


class _Residual(nn.Module):
    def __init__(self, inside: int, outside: int, norm: str) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inside if i == 0 else outside, outside, 3, padding=1, bias=False), Norm2d(outside, norm)
            )
            for i in range(3)
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, bias=False), Norm2d(outside, norm))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number, conv in enumerate(self.convs):
            y = conv(y)
            if number < 2:
                y = F.leaky_relu(y, 0.1)
        return F.max_pool2d(F.leaky_relu(y + self.shortcut(x), 0.1), 2)


@BACKBONES.named("resnet12")
class ResNet12(nn.Module):
    """Four residual blocks of three 3x3 convolutions, widths w, 2w, 4w, 8w, each ending in 2x2 pooling.

    Oreshkin et al., TADAM, NeurIPS 2018; Lee et al., MetaOptNet, CVPR 2019 (widths differ, DropBlock left out).
    The map is averaged over space, so the features do not depend on the picture's size.
    """

    def __init__(self, channels: int, width: int = 64, norm: str = "running") -> None:
        super().__init__()
        self.out_channels = 8 * width
        widths = [channels, width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.ModuleList(_Residual(widths[i], widths[i + 1], norm) for i in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, 8 * width, 1, 1]``; sides from 16 up."""
        for block in self.blocks:
            x = block(x)
        return x.mean((-2, -1), keepdim=True)

    def side(self, size: int) -> int:
        return 1


def ding_side(size: int) -> int:
    """Side of `DingConv`'s feature map of a picture of side ``size``.

    Raises:
        InputError: if nothing would be left of the picture.
    """
    if size < 22:
        raise InputError(f"the ding network takes pictures of 22 x 22 and more; received {size} x {size}.")
    return (size - 6) // 2 + 1 - 8


@BACKBONES.named("ding")
class DingConv(nn.Module):
    """Three convolutions without normalisation: 6x6 of stride 2, then 5x5 twice, each of those with a ReLU.

    The encoder of the Guided-VAE authors' MNIST code (Ding et al., CVPR 2020), where ``width`` is 64.

    Args:
        channels: of the pictures; their side is at least 22.
        width: feature maps of the first layer; twice and four times as many after it.
        norm: taken for the other backbones' sake: there is nothing to normalise.
    """

    def __init__(self, channels: int, width: int = 64, norm: str = "running") -> None:
        super().__init__()
        self.out_channels = 4 * width
        self.first = nn.Conv2d(channels, width, 6, stride=2)
        self.rest = nn.ModuleList([nn.Conv2d(width, 2 * width, 5), nn.Conv2d(2 * width, 4 * width, 5)])

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, 4 * width, side, side]``; a side of 28 ends at 4."""
        x = self.first(x)
        for layer in self.rest:
            x = F.relu(layer(x))
        return x

    def side(self, size: int) -> int:
        return ding_side(size)


@BACKBONES.named("patches")
class Patches(nn.Module):
    """Linear layers over patches, each with a ReLU: 4x4 pixels, then 2x2 patches twice, whose features double.

    No patch overlaps another, and places are kept, as nothing is pooled.

    Args:
        channels: of the pictures.
        width: features of the first patches; twice and four times as many after it.
        norm: taken for the other backbones' sake: there is nothing to normalise.
    """

    def __init__(self, channels: int, width: int = 64, norm: str = "running") -> None:
        super().__init__()
        self.out_channels = 4 * width
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(channels, width, 4, stride=4),
                nn.Conv2d(width, 2 * width, 2, stride=2),
                nn.Conv2d(2 * width, 4 * width, 2, stride=2),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, 4 * width, H // 16, W // 16]``."""
        for layer in self.layers:
            x = F.relu(layer(x))
        return x

    def side(self, size: int) -> int:
        return size // 16


@BACKBONES.named("infogan")
class InfoGANConv(nn.Module):
    """Four 4x4 convolutions of stride 2 with spectral norm, each with a leaky ReLU.

    The trunk that critic and code reader of InfoGAN-CR share (Lin et al., ICML 2020), a fourth convolution standing for
    its linear layer. There ``width`` is 32 on images of side 64.

    Args:
        channels: of the pictures.
        width: feature maps of the first two layers; twice and four times as many after them.
        norm: taken for the other backbones' sake: there is nothing to normalise.
    """

    def __init__(self, channels: int, width: int = 32, norm: str = "running") -> None:
        super().__init__()
        widths = (channels, width, width, 2 * width, 4 * width)
        self.out_channels = widths[-1]
        self.layers = nn.ModuleList(
            SpectralConv2d(inside, outside, 4, stride=2, padding=1) for inside, outside in pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, 4 * width, H // 16, W // 16]``."""
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return x

    def side(self, size: int) -> int:
        return size // 16
