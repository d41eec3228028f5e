"""Ridge-regression head, R2D2 (Bertinetto, Henriques, Torr & Vedaldi, ICLR 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError
from metagvae.learners.base import LEARNERS, FeatureLearner


def _solved(factor: Tensor, targets: Tensor) -> Tensor:
    """``(L L^T)^-1 targets`` of Cholesky factors L ``[T, M, M]``."""
    if factor.is_cpu:
        return torch.cholesky_solve(targets, factor)
    solve: Callable[..., Tensor] = torch.linalg.solve_triangular  # which torch leaves untyped
    # on a GPU that call goes through MAGMA, which waits for the device
    return solve(factor.mT, solve(factor, targets, upper=False), upper=True)


@LEARNERS.register
class RidgeRegression(FeatureLearner):
    """One-hot labels regressed on support features in closed form, through the dual (eq. 4 of the paper).

        W = X^T (X X^T + lambda I)^-1 Y,    logits = a (x W) + b

    with lambda, a and b learnt. X gets a column of ones (the paper's bias). The solve costs (N K)^3, whatever
    the features' length.

    Args:
        encoder: pictures to features.
        penalty: lambda at the start.
        scale: a at the start.
        normalise: divide features by their length first; for encoders whose features are not trained with it.
        roles: see `FeatureLearner`.

    Example:
        >>> import torch
        >>> from metagvae import Encoder, EncoderConfig
        >>> from metagvae.learners import RidgeRegression
        >>> learner = RidgeRegression(Encoder(EncoderConfig(width=8, latent=6))).eval()
        >>> learner.predict(learner.adapt(torch.rand(2, 5, 1, 1, 28, 28)), torch.rand(2, 5, 3, 1, 28, 28)).shape
        torch.Size([2, 15, 5])
    """

    name = "ridge"

    def __init__(
        self,
        encoder: nn.Module,
        penalty: float = 1.0,
        scale: float = 10.0,
        normalise: bool = False,
        roles: str = "given",
    ) -> None:
        super().__init__(encoder, roles)
        if penalty <= 0 or scale <= 0:
            raise InputError(f"ridge's penalty and scale must be positive; received {penalty} and {scale}.")
        self.normalise = normalise
        self.log_penalty = nn.Parameter(torch.tensor(math.log(penalty)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.shift = nn.Parameter(torch.zeros(()))

    def _design(self, features: Tensor) -> Tensor:
        flat = features.flatten(1, 2)
        if self.normalise:
            flat = F.normalize(flat, dim=-1)
        return F.pad(flat, (0, 1), value=1.0)

    def fit_head(self, support: Tensor) -> Tensor:
        """Weights ``[T, D + 1, N]``."""
        way, shot = support.shape[1:3]
        labels = torch.eye(way, dtype=support.dtype, device=support.device).repeat_interleave(shot, 0)
        return self.solve(support, labels)

    def solve(self, support: Tensor, targets: Tensor) -> Tensor:
        """Weights ``[T, D + 1, N]`` of features ``[T, A, B, D]`` and targets ``[A * B, N]``, classes of any sizes."""
        design = self._design(support)
        tasks, rows, _ = design.shape
        gram = design @ design.transpose(1, 2)
        eye = torch.eye(rows, dtype=design.dtype, device=design.device)
        factor, failed = torch.linalg.cholesky_ex(gram + self.log_penalty.exp() * eye)
        # linalg.cholesky would wait for the device to say that it failed; not a number is seen by who reads the loss
        factor = factor.masked_fill((failed > 0)[:, None, None], torch.nan)
        return design.transpose(1, 2) @ _solved(factor, targets.expand(tasks, -1, -1))

    def ask_head(self, state: Tensor, query: Tensor) -> Tensor:
        return self.log_scale.exp() * self._design(query) @ state + self.shift
