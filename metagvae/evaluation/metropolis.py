"""Metropolis-adjusted Langevin moves on p(x, z), tempered towards N(0, I), many chains per image at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.inference.langevin import value_and_slope

Joint = Callable[[Tensor], Tensor]
# step lengths that moves cycle through, in variances of the target; fixed ones leave each move exact
LENGTHS = (0.5, 0.15, 0.3, 0.05)


def log_joint_of(vae: GuidedVAE, images: Tensor) -> Joint:
    """log p(x, z) of latents ``[B, n, latent]``, n per image, as ``[B, n]`` in float64."""

    def joint(z: Tensor) -> Tensor:
        shown = images.repeat_interleave(z.shape[1], 0)
        values: Tensor = vae.log_joint(shown, z.flatten(0, 1).to(images)).double().unflatten(0, z.shape[:2])
        return values

    return joint


def standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I), summed over the last axis."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


@dataclass(frozen=True)
class Chains:
    """Where chains are: ``z [B, n, latent]``, with log p(x, z) ``[B, n]`` and its gradient there, in float64."""

    z: Tensor
    value: Tensor
    slope: Tensor

    @classmethod
    def at(cls, joint: Joint, z: Tensor) -> Chains:
        return cls(z, *value_and_slope(joint, z.double()))

    def moved(self, joint: Joint, factor: Tensor, number: int, noise: Tensor, heat: float = 1.0) -> Chains:
        """One move that leaves p(x, z)^heat N(z; 0, I)^(1 - heat) as it is.

        Args:
            factor: ``[B, latent, latent]``, whose product with its transpose is near the target's covariance.
            number: of the move, which chooses its length.
            noise: standard normal ``[B, n, latent + 1]``; the last decides on acceptance.
        """
        length = LENGTHS[number % len(LENGTHS)]
        whitened = noise[..., :-1]

        def drift(chains: Chains) -> Tensor:
            slope = heat * chains.slope - (1 - heat) * chains.z
            return length * slope @ factor  # in units of the factor

        there = drift(self) + math.sqrt(2 * length) * whitened
        new = Chains.at(joint, self.z + there @ factor.transpose(1, 2))
        # the way back, in the same units: -there = drift(new) + sqrt(2 s) noise
        back = (there + drift(new)).square().sum(-1) / (4 * length)
        gain = heat * (new.value - self.value) + (1 - heat) * (standard_normal(new.z) - standard_normal(self.z))
        gain = gain + 0.5 * whitened.square().sum(-1) - back
        accepted = torch.special.log_ndtr(noise[..., -1]) < gain  # log of a uniform number
        return Chains(
            torch.where(accepted.unsqueeze(-1), new.z, self.z),
            torch.where(accepted, new.value, self.value),
            torch.where(accepted.unsqueeze(-1), new.slope, self.slope),
        )
