"""What a guidance is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from episodes.registry import Registry
from metagvae.encoders.encoder import Posterior


@dataclass(frozen=True)
class Views:
    """How a batch of ``B = pictures * count`` rows is made of warps of pictures, those of one picture in a row.

    Args:
        count: warps of each picture.
        parameters: float ``[B, 7]``, each row's warp as `episodes.augment.Warped` gives it.
    """

    count: int
    parameters: Tensor


@dataclass(frozen=True)
class GuidanceInputs:
    """What a guidance sees of one training step.

    Args:
        images: ``[B, C, H, W]`` in [0, 1].
        posterior: q(z|x).
        z: ``[B, latent]``, one reparametrised draw from it.
        decoder: the main decoder.
        attributes: int64 ``[B]`` by name.
        views: which rows are warps of one picture; None if none are.
    """

    images: Tensor
    posterior: Posterior
    z: Tensor
    decoder: nn.Module
    attributes: dict[str, Tensor]
    views: Views | None = None


@dataclass(frozen=True)
class GuidanceContext:
    """What a guidance is built for.

    Args:
        channels, size: of the pictures.
        units: latent unit numbers by group; the groups this guidance asked for are among them, and
            ``content`` is all that no guidance asked for.
        attributes: how many values each known attribute of the training pictures has, ``class`` among them.
    """

    channels: int
    size: int
    units: dict[str, list[int]]
    attributes: dict[str, int] = field(default_factory=dict)

    @property
    def latent(self) -> int:
        return sum(len(units) for units in self.units.values())


class Guidance(nn.Module, ABC):
    """Loss terms on a VAE's latent. A subclass's constructor takes a `GuidanceContext`, then its options."""

    name: ClassVar[str]
    needs_views: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def owned_units(cls, **options: Any) -> dict[str, int]:
        """How many latent units of which group this guidance asks for."""

    @abstractmethod
    def forward(self, inputs: GuidanceInputs) -> dict[str, Tensor]:
        """Named, weighted loss terms, each a scalar on the scale of one picture."""


GUIDANCES: Registry[type[Guidance]] = Registry("guidance", "metagvae.guidance", given=("context",))
