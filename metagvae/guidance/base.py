"""The contract of a guidance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
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
    """The part of a training step that a guidance sees.

    Args:
        images: ``[B, C, H, W]`` in [0, 1].
        posterior: q(z|x).
        z: ``[B, latent]``, one reparametrised draw from it.
        decoder: the main decoder.
        attributes: int64 ``[B]`` by name; of factors float32 ``[B]``, NaN where unknown.
        views: which rows are warps of one picture; None if none are.
        progress: how much of the training is behind, in [0, 1]; a tensor of one number in a captured step.
        draw: latents ``[count, latent]`` from the VAE's prior.
    """

    images: Tensor
    posterior: Posterior
    z: Tensor
    decoder: nn.Module
    attributes: Mapping[str, Tensor]
    views: Views | None = None
    progress: float | Tensor = 1.0
    draw: Callable[[int], Tensor] | None = None


@dataclass(frozen=True)
class GuidanceContext:
    """The pictures and units that a guidance, a prior or an inference is built for.

    Args:
        channels, size: of the pictures.
        units: latent unit numbers by group; the groups that a guidance asked for are among them, and
            ``content`` is all that no guidance asked for.
        attributes: how many values each known attribute of the training pictures has, ``class`` among them.
        factors: the smallest and the largest known number of each factor of the training pictures; equal where none
            is known.

    Example:
        >>> from metagvae.guidance import GuidanceContext
        >>> GuidanceContext(channels=1, size=28, units={"geometry": [0, 1], "content": [2, 3, 4, 5]}).latent
        6
    """

    channels: int
    size: int
    units: dict[str, list[int]]
    attributes: dict[str, int] = field(default_factory=dict)
    factors: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def latent(self) -> int:
        return sum(len(units) for units in self.units.values())


@dataclass(frozen=True)
class Deformation:
    """Images that a guidance's own decoder makes in two steps: a linear image, then an affine warp of it.

    Args:
        linear, warped: ``[B, C, H, W]`` in the range of images, before and after the warp.
        matrices: ``[B, 2, 3]``, the warps as sampling matrices (where each point of the result comes from).
        transforms: what the warps are made of, such as ``rotation``.
        geometry, components: how many latent units choose the warp, and how many make the linear image.
    """

    linear: Tensor
    warped: Tensor
    matrices: Tensor
    transforms: tuple[str, ...]
    geometry: int
    components: int


class Guidance(nn.Module, ABC):
    """Loss terms on a VAE's latent. A subclass's constructor takes a `GuidanceContext`, then its options.

    Example:
        >>> import torch
        >>> from metagvae import Decoder, Encoder, EncoderConfig, GuidedVAE
        >>> from metagvae.guidance import Guidance
        >>> class Short(Guidance):
        ...     name = "short"
        ...     @classmethod
        ...     def owned_units(cls, **options):
        ...         return {}
        ...     def forward(self, inputs):
        ...         return {"length": inputs.z.square().sum(-1).mean()}
        >>> vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=6)), Decoder(6, 1, 28), [Short()])
        >>> sorted(vae.losses(torch.rand(4, 1, 28, 28)))
        ['kl', 'reconstruction', 'short/length']
    """

    name: ClassVar[str]
    needs_views: bool = False  # whether warps of one picture are compared

    @classmethod
    @abstractmethod
    def owned_units(cls, **options: Any) -> dict[str, int]:
        """How many latent units of which group this guidance asks for."""

    @abstractmethod
    def forward(self, inputs: GuidanceInputs) -> dict[str, Tensor]:
        """Named, weighted loss terms, each a scalar on the scale of one picture."""

    def around(self, decoder: nn.Module) -> nn.Module:
        """The main decoder as this guidance lets it draw, called once when the VAE is built; as it is by default."""
        return decoder

    def taught(self) -> tuple[str, ...]:
        """The attributes whose labels this guidance learns; none without an override."""
        return ()

    def unit_names(self) -> dict[int, str]:
        """The effects of single latent units, by unit number, as figures and reports call them."""
        return {}

    def deformation(self, z: Tensor) -> Deformation | None:
        """How this guidance deforms images of latents ``[B, latent]``; None if it does not."""
        return None

    def drawings(self, z: Tensor) -> dict[str, Tensor]:
        """Drawings of this guidance: images ``[B, C, H, W]`` of latents ``[B, latent]``, by name.

        Figures and the demo show them beside the decoder's. Without an override they are those of `deformation`.
        """
        path = self.deformation(z)
        return {} if path is None else {"linear, unwarped": path.linear, "linear, warped": path.warped}


GUIDANCES: Registry[type[Guidance]] = Registry("guidance", "metagvae.guidance", given=("context",))
