"""Whitening: features from a centre, shortened along the directions in which pictures of one class differ most."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from episodes import InputError


class Whitening(nn.Module):
    """Features ``[B, D]`` minus a centre, each of K orthogonal directions multiplied by a share in (0, 1].

    Linear discriminant analysis without its choice of directions: where pictures of a class lie far apart, a distance
    says little of the class. Learnt on classes set apart (`fit_whitening`), it serves classes never seen.

    Args:
        length: D.
        directions: K.
    """

    centre: Tensor
    directions: Tensor
    shares: Tensor

    def __init__(self, length: int, directions: int) -> None:
        super().__init__()
        if not 1 <= directions <= length:
            raise InputError(f"1 to {length} directions of {length} numbers can be whitened; received {directions}.")
        self.register_buffer("centre", torch.zeros(length))
        self.register_buffer("directions", torch.eye(length, directions))
        self.register_buffer("shares", torch.ones(directions))

    def forward(self, features: Tensor) -> Tensor:
        """``[B, D]``."""
        moved = features - self.centre
        return moved + (moved @ self.directions * (self.shares - 1)) @ self.directions.T


def fit_whitening(features: Tensor, labels: Tensor, directions: int, shrinkage: float) -> Whitening:
    """The whitening of the pooled within-class covariance S, up to one factor of all features.

    S is shrunk towards the multiple of the identity that has its trace (Ledoit & Wolf, Journal of Multivariate
    Analysis, 2004); of its eigenvalues all but the largest are replaced by their mean.

    Args:
        features: ``[n, D]`` of pictures of classes set apart.
        labels: int64 ``[n]``.
        directions: how many of the largest eigenvalues are kept, less than D.
        shrinkage: in (0, 1], the weight of the identity.

    Raises:
        InputError: if no class has two pictures, or a number is out of its range.

    Example:
        >>> import torch
        >>> labels = torch.arange(4).repeat_interleave(50)
        >>> wide = torch.randn(200, 3) * torch.tensor([9.0, 1.0, 1.0])  # classes that differ in nothing but noise
        >>> whitening = fit_whitening(wide, labels, directions=1, shrinkage=0.1)
        >>> bool(whitening(wide)[:, 0].std() < 3)
        True
    """
    if not 0 < shrinkage <= 1 or not 1 <= directions < features.shape[1]:
        raise InputError(
            f"shrinkage must be in (0, 1] and directions between 1 and {features.shape[1] - 1}; received "
            f"{shrinkage} and {directions}."
        )
    kinds, labels = labels.unique(return_inverse=True)
    if len(kinds) == len(labels):
        raise InputError("a whitening is learnt of classes with two pictures or more; every class here has one.")
    features = features.double()
    counts = torch.bincount(labels).double()[:, None]
    means = torch.zeros(len(kinds), features.shape[1]).double().index_add_(0, labels, features) / counts
    apart = features - means[labels]
    values, vectors = torch.linalg.eigh(apart.T @ apart / (len(labels) - len(kinds)))
    values = (1 - shrinkage) * values + shrinkage * values.mean()
    most = len(values) - directions
    made = Whitening(features.shape[1], directions)
    made.centre.copy_(means.mean(0))
    made.directions.copy_(vectors[:, most:])
    made.shares.copy_((values[:most].mean() / values[most:]).sqrt())
    return made
