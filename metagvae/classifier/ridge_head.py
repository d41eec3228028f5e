"""Ridge regression on unit features of classes of any sizes (R2D2's head, Bertinetto et al., ICLR 2019), in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from metagvae.learners import RidgeRegression


def _head(penalty: float) -> RidgeRegression:
    return RidgeRegression(torch.nn.Identity(), penalty=penalty, normalise=True).double()


def ridge_logits(support: Tensor, labels: Tensor, classes: int, penalty: float, features: Tensor) -> Tensor:
    """Logits ``[m, classes]`` of features ``[m, D]``, by support features ``[n, D]`` and their labels ``[n]``."""
    ridge = _head(penalty)
    with torch.no_grad():
        weights = ridge.solve(support.double()[None, None], F.one_hot(labels, classes).double())
        return ridge.ask_head(weights, features.double()[None, None])[0]


def ridge_left_out(support: Tensor, labels: Tensor, classes: int, penalty: float) -> Tensor:
    """Logits ``[n, classes]`` of each of the support features by the head fitted on the others, in closed form."""
    targets = F.one_hot(labels, classes).double()
    ridge = _head(penalty)
    with torch.no_grad():
        rows = support.double()[None, None]
        fitted = ridge.ask_head(ridge.solve(rows, targets), rows)[0]
        hat = ridge.ask_head(ridge.solve(rows, torch.eye(len(support)).double()), rows)[0].diagonal()
    # both came times the head's scale; (y_i - h y_i') / (1 - h) of ordinary leave-one-out
    scale = ridge.log_scale.exp().detach()
    leverage = (hat / scale).unsqueeze(1)
    return (fitted - leverage * targets * scale) / (1 - leverage)
