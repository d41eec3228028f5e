"""The prior of a plain VAE (Kingma & Welling, ICLR 2014)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from episodes.batch_share import normal
from metagvae.encoders.encoder import Posterior
from metagvae.guidance.base import GuidanceContext
from metagvae.vae.priors.base import PRIORS, Labels, Prior


@PRIORS.register
class StandardNormal(Prior):
    """N(0, I), whatever the labels.

    Example:
        >>> import torch
        >>> from metagvae.encoders.encoder import Posterior
        >>> from metagvae.guidance import GuidanceContext
        >>> prior = StandardNormal(GuidanceContext(channels=1, size=28, units={"content": [0, 1]}))
        >>> same = Posterior(torch.zeros(3, 2), torch.zeros(3, 2))  # N(0, I) itself
        >>> prior.kl(same, same.mean, {}).tolist()
        [0.0, 0.0, 0.0]
    """

    name = "standard_normal"
    origin: Tensor

    def __init__(self, context: GuidanceContext) -> None:
        super().__init__()
        # tells the device; no weight of the VAE
        self.register_buffer("origin", torch.zeros(context.latent), persistent=False)

    def kl(self, posterior: Posterior, z: Tensor, labels: Labels) -> Tensor:
        return self.kl_per_unit(posterior, z, labels).sum(-1)

    def kl_per_unit(self, posterior: Posterior, z: Tensor, labels: Labels) -> Tensor:
        mean, log_var = posterior.mean, posterior.log_var
        return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)

    def log_prob(self, z: Tensor, labels: Labels) -> Tensor:
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)

    def sample(self, count: int, labels: Labels) -> Tensor:
        return normal(count, len(self.origin), device=self.origin.device, dtype=self.origin.dtype)
