"""The prior of InfoGAN: codes that are uniform on a cube, and noise that no one reads back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from episodes import InputError
from episodes.batch_share import uniform
from episodes.precision import autocast_off
from metagvae.encoders.encoder import Posterior
from metagvae.guidance.base import GuidanceContext
from metagvae.vae.priors.base import PRIORS, Labels, Prior

_FAR = 30.0  # standard deviations outside of the cube at which a density ends to be a number


@PRIORS.register
class UniformCodes(Prior):
    """Uniform on [-1, 1] in each unit, codes and noise alike (Chen et al., InfoGAN, NeurIPS 2016).

    The axes of a cube are not free, as those of N(0, I) are: a rotation of codes is no longer uniform. For adversarial
    training (the config's section ``adversary``), which has no KL. `kl` is the information that codes carry, for
    reports: that of the posterior within the cube.

    Args:
        codes: units of the group of that name, which the encoder reads back.
        noise: units of the group of that name, which it does not.

    Example:
        >>> from metagvae.guidance import GuidanceContext
        >>> prior = UniformCodes(GuidanceContext(1, 28, {"codes": [0, 1], "noise": [2]}), codes=2, noise=1)
        >>> drawn = prior.sample(100, {})
        >>> bool((drawn.abs() <= 1).all()), tuple(drawn.shape)
        (True, (100, 3))
    """

    name = "uniform_codes"
    reach = 1.0
    read: Tensor

    def __init__(self, context: GuidanceContext, codes: int = 5, noise: int = 5) -> None:
        super().__init__()
        self.owned_units(codes=codes, noise=noise)
        self.latent = context.latent
        read = torch.ones(context.latent)
        read[context.units.get("noise", [])] = 0
        self.register_buffer("read", read, persistent=False)

    @classmethod
    def owned_units(cls, **options: Any) -> dict[str, int]:
        codes, noise = options.get("codes", 5), options.get("noise", 5)
        if codes < 1 or noise < 0:
            raise InputError(
                f"vae.prior: uniform_codes needs codes >= 1 and noise >= 0 units; received {codes} and {noise}."
            )
        return {"codes": codes, "noise": noise} if noise else {"codes": codes}

    def kl(self, posterior: Posterior, z: Tensor, labels: Labels) -> Tensor:
        return self.kl_per_unit(posterior, z, labels).sum(-1)

    def kl_per_unit(self, posterior: Posterior, z: Tensor, labels: Labels) -> Tensor:
        """log 2 less the entropy of the normal density cut off at -1 and 1, ``[B, latent]``; 0 of noise."""
        with autocast_off(z):
            spread = (0.5 * posterior.log_var.double()).exp()
            # the same by symmetry, and no difference of numbers near 1
            mean = torch.minimum(posterior.mean.double().abs(), 1 + _FAR * spread)
            low, high = (-1 - mean) / spread, (1 - mean) / spread
            below, above = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
            inside = above + torch.log1p(-(below - above).exp())  # log of the probability
            edges = 0.5 * (low * (_log_bell(low) - inside).exp() - high * (_log_bell(high) - inside).exp())
            entropy = 0.5 * math.log(2 * math.pi * math.e) + spread.log() + inside + edges
            carried: Tensor = (math.log(2) - entropy) * self.read
            return carried.to(posterior.mean.dtype)

    def log_prob(self, z: Tensor, labels: Labels) -> Tensor:
        outside = (z.abs() > 1).any(-1)
        inside = -self.latent * math.log(2)
        density: Tensor = torch.where(outside, -math.inf, inside).to(z)
        return density

    def sample(self, count: int, labels: Labels) -> Tensor:
        return 2 * uniform(count, self.latent, device=self.read.device) - 1


def _log_bell(x: Tensor) -> Tensor:
    return -0.5 * (x.square() + math.log(2 * math.pi))
