"""Dependence of codes on a label, measured without an adversary (Hilbert-Schmidt independence criterion)."""

from __future__ import annotations

import torch
from torch import Tensor

from episodes.precision import autocast_off
from metagvae.compute.batch_statistics import batch_rows
from metagvae.encoders.norm import full_precision

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0)  # of Gaussian kernels, in deviations of a unit


def unbiased_hsic(codes: Tensor, others: Tensor, known: Tensor) -> Tensor:
    """Dependence of two variables from their kernel matrices; on average zero where they are independent.

    The unbiased estimate of the squared Hilbert-Schmidt norm of the cross-covariance (Gretton, Bousquet, Smola &
    Schoelkopf, ALT 2005; Song, Smola, Gretton, Bedo & Borgwardt, JMLR 2012, equation 4). Below four rows it is zero.

    Args:
        codes, others: kernels ``[B, B]`` of the same rows.
        known: bool ``[B]``, the rows that take part.

    Example:
        >>> import torch
        >>> from metagvae.guidance.dependence import unbiased_hsic
        >>> same = torch.eye(2).repeat_interleave(4, 0).repeat_interleave(4, 1)
        >>> bool(unbiased_hsic(same, same, torch.ones(8, dtype=torch.bool)) > 0.1)
        True
    """
    part = known.to(codes)
    pairs = part[:, None] * part * (1 - torch.eye(len(part), dtype=codes.dtype, device=codes.device))
    k, l, n = codes * pairs, others * pairs, part.sum().clamp(min=4)  # noqa: E741
    together = (k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) * l.sum(0)).sum()
    return together / (n * (n - 3)) * (part.sum() >= 4)


def dependence(codes: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Dependence of codes ``[B, D]`` on labels ``[B]`` over the whole step's batch; at most about one.

    `unbiased_hsic` of Gaussian kernels of `BANDWIDTHS`, averaged, on the codes and equality of the labels, over the
    share of pairs of one label. Codes are standardised by the batch, so that to shrink them is of no avail.

    Args:
        known: bool ``[B]``, the rows whose label is known.
    """
    x, labels, known = batch_rows(full_precision(codes)), batch_rows(labels), batch_rows(known.long()) > 0
    with autocast_off(x):  # a distance is a small difference of large squares
        x = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-4).sqrt()
        squares = x.square().sum(1)
        distances = (squares[:, None] + squares - 2 * x @ x.T).clamp(min=0) / x.shape[1]
        kernels = torch.stack([(-distances / (2 * width**2)).exp() for width in BANDWIDTHS]).mean(0)
        same = (labels[:, None] == labels).to(x)
        pairs = known[:, None] & known & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        share = (same * pairs).sum() / pairs.sum().clamp(min=1)
        return unbiased_hsic(kernels, same, known) / share.clamp(min=1e-3)
