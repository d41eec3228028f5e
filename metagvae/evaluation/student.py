"""Student's t in several dimensions, fitted to points: a proposal with tails for importance sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FREEDOM = 5  # few enough for heavy tails, and the variance is finite


@dataclass(frozen=True)
class Student:
    """Multivariate t of `FREEDOM` degrees of freedom, one per image.

    Args:
        location: ``[B, latent]``.
        factor: ``[B, latent, latent]``, lower triangular; times its transpose it is the scale matrix.

    Example:
        >>> import torch
        >>> from metagvae.evaluation.student import Student
        >>> student = Student.fit(torch.randn(2, 64, 3))
        >>> draws = student.draw(torch.randn(2, 10, Student.noise_width(3)))
        >>> student.log_prob(draws).shape
        torch.Size([2, 10])
    """

    location: Tensor
    factor: Tensor

    @classmethod
    def fit(cls, points: Tensor) -> Student:
        """The t whose location and scale matrix are the mean and covariance of points ``[B, n, latent]``.

        Covariances between units are shrunk by n / (n + latent), since few points do not tell them.
        """
        _, count, latent = points.shape
        points = points.double()
        location = points.mean(1)
        centred = points - location.unsqueeze(1)
        covariance = centred.transpose(1, 2) @ centred / (count - 1)
        variance = covariance.diagonal(dim1=1, dim2=2)
        kept = count / (count + latent)
        covariance = kept * covariance + torch.diag_embed((1 - kept) * variance + 1e-12)
        return cls(location, torch.linalg.cholesky(covariance))

    @staticmethod
    def noise_width(latent: int) -> int:
        """How many standard normal numbers a draw takes."""
        return latent + FREEDOM

    def draw(self, noise: Tensor) -> Tensor:
        """Draws ``[B, n, latent]`` out of standard normal noise ``[B, n, latent + FREEDOM]``."""
        latent = self.location.shape[-1]
        noise = noise.double()
        spread = (noise[..., latent:].square().sum(-1, keepdim=True) / FREEDOM).sqrt()
        return self.location.unsqueeze(1) + (noise[..., :latent] / spread) @ self.factor.transpose(1, 2)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density ``[B, n]`` of ``[B, n, latent]``."""
        latent, half = z.shape[-1], FREEDOM / 2
        gap = (z - self.location.unsqueeze(1)).transpose(1, 2)
        squares = torch.linalg.solve_triangular(self.factor, gap, upper=False).square().sum(1)
        constant = math.lgamma(half + latent / 2) - math.lgamma(half) - latent / 2 * math.log(FREEDOM * math.pi)
        scale = self.factor.diagonal(dim1=1, dim2=2).log().sum(-1, keepdim=True)
        return constant - scale - (half + latent / 2) * torch.log1p(squares / FREEDOM)
