"""A VAE whose decoder is linear and whose likelihood is Gaussian, so that every density has a closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metagvae.encoders.encoder import Encoder, EncoderConfig, Posterior
from metagvae.vae.guided_vae import GuidedVAE

SIDE = 4


class LogitLinear(nn.Module):
    """Latents to logits whose sigmoid is 0.5 + W z, which stays inside (0, 1)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, z: Tensor) -> Tensor:
        mean = 0.5 + z @ self.weight.T
        return (mean / (1 - mean)).log().unflatten(-1, (1, SIDE, SIDE))


class GivenEncoder(Encoder):
    """An encoder that answers every image with one posterior."""

    def answer(self, mean: Tensor, variance: Tensor) -> None:
        self.given = mean, variance.log()

    def posterior(self, images: Tensor) -> Posterior:
        mean, log_var = self.given
        return Posterior(mean.expand(len(images), -1), log_var.expand(len(images), -1))


class LinearGaussian:
    """x = 0.5 + W z + noise of deviation ``sigma``, with z of N(0, I): the VAE and the closed forms, in float64."""

    def __init__(self, latent: int = 3, sigma: float = 0.08, spread: float = 0.02, **options: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weight = spread * torch.randn(SIDE * SIDE, latent, generator=generator, dtype=torch.float64)
        self.sigma, self.latent = sigma, latent
        self.encoder = GivenEncoder(EncoderConfig(width=2, latent=latent)).double()
        decoder = LogitLinear(self.weight.clone())
        self.vae = GuidedVAE(self.encoder, decoder, likelihood="gaussian", sigma=sigma, **options).double().eval()
        noise = torch.randn(5, SIDE * SIDE, generator=generator, dtype=torch.float64)
        z = torch.randn(5, latent, generator=generator, dtype=torch.float64)
        self.rows = 0.5 + z @ self.weight.T + sigma * noise
        self.precision = torch.eye(latent, dtype=torch.float64) + self.weight.T @ self.weight / sigma**2
        self.encoder.answer(torch.zeros(latent).double(), torch.ones(latent).double())

    @property
    def images(self) -> Tensor:
        """``[5, 1, SIDE, SIDE]``."""
        return self.rows.unflatten(-1, (1, SIDE, SIDE))

    def posterior_mean(self, image: int) -> Tensor:
        return torch.linalg.solve(self.precision, self.weight.T @ (self.rows[image] - 0.5) / self.sigma**2)

    def log_evidence(self) -> Tensor:
        """log p(x) of the images, ``[5]``."""
        eye = torch.eye(SIDE * SIDE, dtype=torch.float64)
        covariance = self.weight @ self.weight.T + self.sigma**2 * eye
        return torch.distributions.MultivariateNormal(0.5 + 0 * eye[0], covariance).log_prob(self.rows)
