"""log p(x) of images under a VAE, by importance sampling and, as a second opinion, by annealing.

The proposal is a Student density fitted to the ends of Langevin chains. Estimates that weigh the chains' ends
themselves are not used: they need the chain's Jacobian, and miss what the chain does not reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from episodes.counter_rng import fold
from metagvae.evaluation.metropolis import Chains, log_joint_of, standard_normal
from metagvae.evaluation.student import Student
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.inference.image_noise import image_keys, normal_noise
from metagvae.vae.inference.langevin import langevin_chain

ROWS = 2048  # latents that are decoded at a time
_ASCENT, _ASCENT_STEP = 100, 0.05
_GUARD = 10  # every so many draws come from the recognition
_ROUNDS = 3  # chains run in the covariance that the round before found


@dataclass(frozen=True)
class Estimates:
    """log p(x) of images, each number ``[B]``.

    Args:
        log_p: in nats. The mean of the weights is unbiased, so its logarithm is low rather than high.
        error: standard error of ``log_p`` over draws (delta method).
        effective: effective sample size, (sum w)^2 / sum w^2.
    """

    log_p: Tensor
    error: Tensor
    effective: Tensor

    @classmethod
    def of_weights(cls, log_weights: Tensor) -> Estimates:
        """Out of log weights ``[B, draws]``."""
        draws = log_weights.shape[1]
        squares = log_weights.softmax(1).square().sum(1)
        error = ((draws * squares - 1).clamp(min=0) / max(1, draws - 1)).sqrt()
        return cls(log_weights.logsumexp(1) - math.log(draws), error, 1 / squares)


def _keys(images: Tensor, each: int, seed: int) -> Tensor:
    """int64 ``[B, each]``."""
    keys = fold(image_keys(images), seed)
    return fold(keys.unsqueeze(1), torch.arange(each, device=keys.device))


@torch.no_grad()
def fitted_proposal(vae: GuidedVAE, images: Tensor, chains: int, steps: int, seed: int = 0) -> Student:
    """A Student density per image, fitted to the later halves of Langevin chains on log p(x, z).

    They begin around the point that gradient ascent reaches from the recognition's mean.

    Args:
        images: ``[B, C, H, W]``.
        chains: per image.
        steps: of each round of the chains.
    """
    first = vae.recognition(images)
    variance, latent, keys = first.log_var.exp(), first.mean.shape[1], _keys(images, chains, seed)
    joint = log_joint_of(vae, images)
    top = langevin_chain(
        lambda z: joint(z.unsqueeze(1)).squeeze(1),
        first.mean.double(),
        [_ASCENT_STEP] * _ASCENT,
        variance.double(),
        0.0,
        lambda _: first.mean,
    )
    factor = torch.diag_embed(variance.double().sqrt())
    state = Chains.at(joint, top.unsqueeze(1) + normal_noise(keys, 0, latent) @ factor)
    for number in range(_ROUNDS):
        kept = []
        for step in range(steps):
            noise = normal_noise(keys, 1 + number * steps + step, latent + 1)
            state = state.moved(joint, factor, step, noise)
            kept += [state.z] if step >= steps // 2 else []
        proposal = Student.fit(torch.cat(kept, 1))
        factor = proposal.factor
    return proposal


@torch.no_grad()
def importance_sampling(vae: GuidedVAE, images: Tensor, proposal: Student, samples: int, seed: int = 0) -> Estimates:
    """log p(x) by draws of a proposal, whose noise is a function of the image.

    Every tenth draw is of the recognition instead, and all are weighed by the mixture (Hesterberg, Technometrics
    1995): where the chains missed a mode that the encoder covers, no weight grows without bound.

    Args:
        images: ``[B, C, H, W]``.
        proposal: one density per image.
        samples: draws per image.
    """
    latent, keys = proposal.location.shape[1], _keys(images, samples, seed)
    first, joint = vae.recognition(images), log_joint_of(vae, images)
    mean, scale = first.mean.double().unsqueeze(1), (0.5 * first.log_var.double()).exp().unsqueeze(1)
    guard = (torch.arange(samples, device=keys.device) % _GUARD == _GUARD - 1).unsqueeze(-1)
    share, block, weights = float(guard.double().mean()), max(1, ROWS // len(images)), []
    for some, guarded in zip(keys.split(block, 1), guard.split(block), strict=True):
        noise = normal_noise(some, 0, Student.noise_width(latent))
        z = torch.where(guarded, mean + scale * noise[..., :latent], proposal.draw(noise))
        fitted = proposal.log_prob(z) + math.log1p(-share)
        recognised = standard_normal((z - mean) / scale) - scale.log().sum(-1) + math.log(share or 1e-300)
        weights.append(joint(z) - torch.logaddexp(fitted, recognised))
    return Estimates.of_weights(torch.cat(weights, 1))


@torch.no_grad()
def annealed_sampling(
    vae: GuidedVAE, images: Tensor, proposal: Student, chains: int, temperatures: int, seed: int = 0
) -> Estimates:
    """log p(x) by annealed importance sampling from N(0, I) to p(x, z) (Neal, Statistics and Computing 2001).

    It begins far from the proposal, which only says how long the moves may be.

    Args:
        images: ``[B, C, H, W]``.
        chains: per image.
        temperatures: bridges between the two densities.
    """
    keys, joint = _keys(images, chains, seed), log_joint_of(vae, images)
    latent = proposal.location.shape[1]
    precision, axes = torch.linalg.eigh(torch.cholesky_inverse(proposal.factor))
    state = Chains.at(joint, normal_noise(keys, 0, latent))
    log_weights, before = torch.zeros_like(state.value), 0.0
    for number in range(1, temperatures + 1):
        heat = (number / temperatures) ** 4  # slowly at first, where the likelihood is steepest
        log_weights += (heat - before) * (state.value - standard_normal(state.z))
        # of N(0, I)^(1 - heat) N(., covariance)^heat
        factor = axes * ((1 - heat) + heat * precision).rsqrt().unsqueeze(1)
        state = state.moved(joint, factor, number, normal_noise(keys, number, latent + 1), heat)
        before = heat
    return Estimates.of_weights(log_weights)


@torch.no_grad()
def evidence_bound(vae: GuidedVAE, images: Tensor, draws: int, seed: int = 0) -> Tensor:
    """ELBO of each image under the recognition, ``[B]``, in nats: a mean over draws of log p(x, z) - log q(z|x)."""
    first = vae.recognition(images)
    noise = normal_noise(_keys(images, draws, seed), 0, first.mean.shape[1]).to(first.mean)
    z = first.mean.unsqueeze(1) + noise * (0.5 * first.log_var).exp().unsqueeze(1)
    log_q = standard_normal(noise) - 0.5 * first.log_var.sum(-1, keepdim=True)
    return (log_joint_of(vae, images)(z) - log_q).mean(1)
