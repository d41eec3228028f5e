"""Spatial transformer (Jaderberg et al., NeurIPS 2015): a decoder that draws upright, and a warp of what it drew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from episodes.augment import resample, sampling_grid
from metagvae.encoders.norm import full_precision
from metagvae.encoders.units import Units


class SpatialTransformer(nn.Module):
    """A decoder whose picture is warped by some units, which the decoder itself does not see.

    Args:
        decoder: latents ``[B, latent]`` to picture logits ``[B, C, H, W]``; it is given zeros for ``units``.
        units: numbers of the units that choose the warp.
        latent: units in all.
        warp: values of ``units`` to sampling matrices ``[B, 2, 3]``. Its weights are another module's.

    Example:
        >>> import torch
        >>> from metagvae import Decoder
        >>> still = lambda geometry: torch.eye(2, 3).expand(len(geometry), 2, 3)
        >>> decoder = SpatialTransformer(Decoder(6, 1, 28), [0, 1], 6, still)
        >>> decoder(torch.zeros(2, 6)).shape
        torch.Size([2, 1, 28, 28])
    """

    upright: Tensor  # 0 for the units that choose the warp, 1 for the others

    def __init__(self, decoder: nn.Module, units: Sequence[int], latent: int, warp: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.decoder, self.of_units = decoder, Units(units)
        self._warp = (warp,)  # in a tuple, so that a guidance's weights are not registered here a second time
        chosen = set(units)
        seen = torch.tensor([float(unit not in chosen) for unit in range(latent)])
        self.register_buffer("upright", seen, persistent=False)

    def matrices(self, z: Tensor) -> Tensor:
        """Sampling matrices ``[B, 2, 3]`` of latents ``[B, latent]``: where each point of the picture comes from."""
        return self._warp[0](full_precision(self.of_units(z)))

    def forward(self, z: Tensor) -> Tensor:
        logits = full_precision(self.decoder(z * self.upright))
        return resample(logits, sampling_grid(self.matrices(z), logits.shape))
