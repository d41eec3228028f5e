"""Chains of gradient or Langevin steps on a log density."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Density = Callable[[Tensor], Tensor]


def value_and_slope(log_density: Density, z: Tensor) -> tuple[Tensor, Tensor]:
    """A log density ``[B]`` at latents ``[B, latent]``, and its gradient there; no weight's gradient is touched."""
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        value = log_density(at)
        (slope,) = torch.autograd.grad(value.sum(), at)  # a sum: the step must not depend on the batch's size
    return value.detach(), slope


def langevin_chain(
    log_density: Density,
    z: Tensor,
    steps: Sequence[float],
    variance: Tensor | float,
    temperature: float,
    noise: Callable[[int], Tensor],
) -> Tensor:
    """The ends ``[B, latent]`` of unadjusted Langevin chains; of gradient ascent at temperature 0.

    A step of length s is z + s V grad log p(z) + sqrt(2 s T V) noise, with V the diagonal ``variance``.

    Args:
        log_density: latents ``[B, latent]`` to ``[B]``, row by row.
        z: where the chains begin.
        steps: the length of each step; above about 2 a step overshoots where V is the variance of the density.
        variance: of what is stepped through, ``[B, latent]`` or one number.
        temperature: T; 1 is Langevin's, less is annealed.
        noise: standard normal ``[B, latent]``, given the number of the step.
    """
    for number, length in enumerate(steps):
        z = z + length * variance * value_and_slope(log_density, z)[1]
        if temperature:
            scale = torch.as_tensor(2 * length * temperature * variance, dtype=z.dtype, device=z.device).sqrt()
            z = z + scale * noise(number)
    return z.detach()


def finite_steps(step: float | Sequence[float], count: int) -> list[float]:
    """``count`` step lengths: one for all, or a list whose last one is kept up; empty if one is not positive."""
    given = [float(length) for length in step] if isinstance(step, Sequence) else [float(step)]
    if not given or not all(0 < length < math.inf for length in given):
        return []
    return (given + given[-1:] * count)[:count]
