"""Ready feature vectors in an encoder's place: text, sound, other networks' embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from episodes import InputError
from episodes.untrusted.typed import check_types
from metagvae.encoders.encoder import ENCODERS, Encoder, EncoderConfig, Posterior

VECTORS = "vectors"
MAX_LENGTH = 65_536


@dataclass
class VectorsConfig(EncoderConfig):
    """How long the vectors are.

    Args:
        length: numbers in a vector.
    """

    backbone: str = VECTORS
    latent: int = 0
    features: list[str] = field(default_factory=lambda: [VECTORS])
    length: int = 1

    def check(self) -> None:
        """Raises `InputError` if a value is not allowed."""
        check_types(type(self), vars(self), "encoder.")
        if not 1 <= self.length <= MAX_LENGTH:
            raise InputError(f"encoder.length must be between 1 and {MAX_LENGTH}; received {self.length}.")
        if self.features != [VECTORS]:
            raise InputError(f"ready vectors have no choice of features; received {self.features}.")


@ENCODERS.register
class Vectors(Encoder):
    """Vectors ``[n, length]`` as they are; there is nothing to train.

    Example:
        >>> import torch
        >>> from metagvae.encoders.vectors import Vectors, VectorsConfig
        >>> Vectors(VectorsConfig(length=3))(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    name = VECTORS
    settings = VectorsConfig
    takes_any_size = True
    has_posterior = False
    trainable = False

    def __init__(self, config: VectorsConfig) -> None:
        nn.Module.__init__(self)
        config.check()
        self.config: VectorsConfig = config

    @property
    def features(self) -> list[str]:
        """Always ``["vectors"]``."""
        return self.config.features

    @features.setter
    def features(self, names: list[str]) -> None:
        if list(names) != [VECTORS]:
            raise InputError(f"ready vectors have no choice of features; received {names}.")

    @property
    def feature_size(self) -> int:
        return self.config.length

    def posterior(self, images: Tensor) -> Posterior:
        raise InputError("ready vectors have no latent, so no posterior.")

    def maps(self, images: Tensor) -> Tensor:
        return self.forward(images)

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 2 or images.shape[1] != self.config.length:
            raise InputError(f"expected vectors [n, {self.config.length}]; received {list(images.shape)}.")
        return images
