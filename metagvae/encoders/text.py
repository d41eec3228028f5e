"""The encoder of short texts: characters in, a Gaussian latent out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError
from episodes.tokens import TEXT, numbers_of
from metagvae.encoders.encoder import ENCODERS, Encoder, EncoderConfig

_EMBEDDING = 32


class TextBackbone(nn.Module):
    """Two convolutions over characters, then mean and maximum over places: ``[B, length]`` to ``[B, 4 width, 1, 1]``.

    There is no normalisation, so a text's features depend on it alone.

    Args:
        symbols: how many there are.
        width: of the first convolution; the second has twice as many.
    """

    def __init__(self, symbols: int, width: int) -> None:
        super().__init__()
        self.out_channels = 4 * width
        self.embedding = nn.Embedding(symbols, _EMBEDDING)
        self.first = nn.Conv1d(_EMBEDDING, width, 3, padding=1)
        self.second = nn.Conv1d(width, 2 * width, 3, padding=1)

    @staticmethod
    def side(size: int) -> int:
        """1: places are pooled."""
        return 1

    def forward(self, numbers: Tensor) -> Tensor:
        x = self.embedding(numbers).transpose(1, 2)
        x = F.relu(self.second(F.relu(self.first(x))))
        return torch.cat((x.mean(-1), x.amax(-1)), -1)[..., None, None]


@dataclass
class TextConfig(EncoderConfig):
    """Settings of a text encoder; ``channels`` is the number of symbols, ``size`` that of characters in a text."""

    backbone: str = "text"
    channels: int = 160
    size: int = 48
    polarity: str = TEXT

    def check(self) -> None:
        """Raises `InputError` if a value is not allowed."""
        plain = {
            name: value
            for name, value in vars(self).items()
            if name not in ("backbone", "channels", "size", "polarity")
        }
        EncoderConfig(**plain).check()
        if (self.backbone, self.polarity) != ("text", TEXT):
            raise InputError(
                f"a text encoder has the backbone 'text' and the polarity 'text'; received {self.backbone[:100]!r} and "
                f"{str(self.polarity)[:100]!r}."
            )
        if not (isinstance(self.channels, int) and 2 <= self.channels <= 255):
            raise InputError(f"encoder.channels must be between 2 and 255 symbols; received {self.channels}.")
        if not (isinstance(self.size, int) and 8 <= self.size <= 512):
            raise InputError(f"encoder.size must be between 8 and 512 characters; received {self.size}.")


@ENCODERS.register
class TextEncoder(Encoder):
    """Texts ``[B, 1, 1, length]``, as a `TokenBank` gives them, to features.

    Example:
        >>> import torch
        >>> from metagvae.encoders.text import TextConfig, TextEncoder
        >>> encoder = TextEncoder(TextConfig(width=8, latent=6, channels=30, size=20))
        >>> encoder(torch.randint(0, 30, (3, 1, 1, 20)) / 255).shape
        torch.Size([3, 6])
    """

    name = "text"
    settings = TextConfig

    def _new_backbone(self) -> TextBackbone:
        return TextBackbone(self.config.channels, self.config.width)

    def maps(self, images: Tensor) -> Tensor:
        """Flattened backbone features ``[B, backbone_size]`` of texts ``[B, 1, 1, length]`` in [0, 1].

        Raises:
            InputError: if they are no such texts.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != (1, 1, self.config.size):
            raise InputError(
                f"this encoder takes texts [B, 1, 1, {self.config.size}] of symbol numbers over 255; received "
                f"{list(images.shape)}. Load the data set with --size {self.config.size}."
            )
        maps: Tensor = self.backbone(numbers_of(images).clamp(max=self.config.channels - 1))
        return maps.flatten(1)
