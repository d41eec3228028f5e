"""How much of a latent is used: active units, and what the latent tells of the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ACTIVE = 0.01


def active_units(means: Tensor) -> Tensor:
    """bool ``[latent]``: whether the variance over images of the posterior mean ``[N, latent]`` is above `ACTIVE`.

    The measure of Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders" (ICLR 2016).
    """
    active: Tensor = means.double().var(0) > ACTIVE
    return active


def mutual_information(mean: Tensor, log_var: Tensor) -> float:
    """Nats between an image and its latent under q(z|x), both ``[N, latent]``; at most log N.

    E log q(z|x) - log mean_j q(z|x_j), one draw per image (Hoffman & Johnson, "ELBO surgery", NIPS workshop 2016).
    The draws take nothing from torch's generator.
    """
    mean, log_var = mean.double(), log_var.double()
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(mean.device)
    z, precision = mean + noise * (0.5 * log_var).exp(), (-log_var).exp()
    constant = (log_var + mean.square() * precision).sum(1)
    total, rows = 0.0, 512
    for start in range(0, len(z), rows):
        part = z[start : start + rows]
        squares = part.square() @ precision.T - 2 * part @ (mean * precision).T + constant
        own = squares[torch.arange(len(part)), torch.arange(start, start + len(part))]
        total += float((-0.5 * own - (-0.5 * squares).logsumexp(1)).sum())
    return total / len(z) + math.log(len(z))
