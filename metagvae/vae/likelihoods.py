"""Likelihoods log p(x|z) of images and texts, given a decoder's logits."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from episodes.tokens import numbers_of
from metagvae.encoders.norm import full_precision

OF_IMAGES = ("bernoulli", "gaussian", "logistic")
LIKELIHOODS = (*OF_IMAGES, "categorical")
LEVELS = 255  # between neighbouring grey values of an 8-bit image in [0, 1]


def reconstruction_error(logits: Tensor, images: Tensor, likelihood: str, sigma: float) -> Tensor:
    """-log p(x|z) up to a constant, summed over a picture, averaged over the batch.

    Args:
        logits: ``[B, C, H, W]``, the decoder's output; its sigmoid is the mean picture.
        images: the same shape, in [0, 1].
        likelihood: ``bernoulli`` (cross entropy), ``gaussian`` of standard deviation ``sigma``, ``logistic`` of scale
            ``sigma``, or ``categorical`` of texts, whose logits are ``[B, symbols, 1, length]``.
    """
    if likelihood in ("categorical", "logistic"):
        return -log_likelihood(logits, images, likelihood, sigma).mean()
    if likelihood == "bernoulli":
        total = F.binary_cross_entropy_with_logits(full_precision(logits), images, reduction="sum")
    else:
        total = F.mse_loss(full_precision(logits).sigmoid(), images, reduction="sum") / (2 * sigma**2)
    return total / len(images)


def log_likelihood(logits: Tensor, images: Tensor, likelihood: str, sigma: float) -> Tensor:
    """log p(x|z) of each image, ``[B]``, in nats, constants included; never a mean over the batch.

    Of a Bernoulli it is a probability where the pixels are 0 or 1. Of pixels between them it is the cross entropy
    that training minimises, which is no density. Of a Gaussian it is a density; of a logistic a probability of 8-bit
    pixels.

    Args:
        logits, images, likelihood, sigma: as `reconstruction_error` takes them.
    """
    if likelihood == "categorical":
        each = -F.cross_entropy(full_precision(logits), numbers_of(images).unsqueeze(1), reduction="none")
    elif likelihood == "bernoulli":
        each = -F.binary_cross_entropy_with_logits(full_precision(logits), images, reduction="none")
    elif likelihood == "logistic":
        each = discretised_logistic(full_precision(logits).sigmoid(), images, sigma)
    else:
        gap = (full_precision(logits).sigmoid() - images) / sigma
        each = -0.5 * gap.square() - math.log(sigma * math.sqrt(2 * math.pi))
    return each.flatten(1).sum(1)


def discretised_logistic(mean: Tensor, images: Tensor, scale: float) -> Tensor:
    """log P of each 8-bit pixel: a logistic density's mass between the middles to its two neighbours.

    The lowest and the highest value take the tails (Salimans, Karpathy, Chen & Kingma, ICLR 2017, eq. 2), so the 256
    probabilities sum to one. The difference of two sigmoids is a product, F(a) - F(b) = F(a) F(-b) (1 - exp(b - a)),
    whose logarithm does not cancel.

    Args:
        mean, images: in [0, 1], of one shape.
        scale: of the logistic, in units of the picture's range.
    """
    half = 0.5 / LEVELS
    above, below = (images - mean + half) / scale, (images - mean - half) / scale
    log_below_top, log_above_bottom = F.logsigmoid(above), F.logsigmoid(-below)
    between = log_below_top + log_above_bottom + math.log(-math.expm1(-2 * half / scale))
    return between.where(images > half, log_below_top).where(images < 1 - half, log_above_bottom)
