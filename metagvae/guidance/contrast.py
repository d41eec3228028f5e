"""Contrasts between a code and an auxiliary variable, by which nonlinear components can be told one by one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError

MOST_STATISTICS = 3


def statistics_of(code: Tensor, count: int) -> Tensor:
    """``[..., units, count]`` of a code ``[..., units]``: the code, its square, its absolute value."""
    return torch.stack((code, code.square(), code.abs())[:count], -1)


def check_statistics(count: int) -> int:
    """The count itself; raises `InputError` unless it is 1 to 3."""
    if count not in range(1, MOST_STATISTICS + 1):
        raise InputError(f"a contrast takes 1 to {MOST_STATISTICS} statistics of each unit; received {count!r}.")
    return count


class SegmentContrast(nn.Module):
    """Logits of the values of a discrete auxiliary variable, a sum over the units of a code.

        r(x, u) = sum_i w_i(u) . (h_i(x), h_i(x)^2) + b(u)

    The softmax over u of a time-contrastive learner (Hyvarinen & Morioka, NeurIPS 2016; the conditional exponential
    family of Hyvarinen, Sasaki & Turner, AISTATS 2019, section 4): what depends on the image alone cancels. With means
    and variances that differ between the values, the units are the sources up to order and one affine map each.

    Args:
        values: of the auxiliary variable.
        units: of the code.
        statistics: 2 for the code and its square; 1 for the code alone, 3 for its absolute value too.

    Raises:
        InputError: if there are no values to tell apart, or no such statistics.

    Example:
        >>> import torch
        >>> from metagvae.guidance.contrast import SegmentContrast
        >>> SegmentContrast(values=40, units=5)(torch.randn(8, 5)).shape
        torch.Size([8, 40])
    """

    def __init__(self, values: int, units: int, statistics: int = 2) -> None:
        super().__init__()
        if values < 2:
            raise InputError(f"a contrast tells the values of a variable apart and needs 2 or more; received {values}.")
        self.statistics = check_statistics(statistics)
        self.weights = nn.Linear(units * statistics, values)

    def forward(self, code: Tensor) -> Tensor:
        """Logits ``[B, values]`` of a code ``[B, units]``."""
        logits: Tensor = self.weights(statistics_of(code, self.statistics).flatten(1))
        return logits

    def loss(self, code: Tensor, values: Tensor) -> Tensor:
        """Mean cross entropy, in nats, of codes ``[B, units]`` and the values ``[B]`` that they came with."""
        return F.cross_entropy(self(code), values)


class PairedContrast(nn.Module):
    """Log-odds that a code came with its own auxiliary vector, one entry of which belongs to each unit.

        r(x, u) = sum_i w_i(u_i) . (h_i(x), h_i(x)^2) + a(x) + b(u)

    Logistic regression against shuffled vectors (Hyvarinen, Sasaki & Turner, AISTATS 2019, equations 5 to 7). At its
    optimum r is log p(x|u) - log p(x), and no sum over units holds the second term: ``a`` is free. Each unit sees one
    entry alone, for with all of them any rotation of units of equal noise would serve as well.

    Args:
        units: of the code, and entries of the vector.
        free: numbers of ``x`` that ``a`` sees.
        statistics: as for `SegmentContrast`.
        hidden: width of each network's one hidden layer.

    Example:
        >>> import torch
        >>> from metagvae.guidance.contrast import PairedContrast
        >>> contrast = PairedContrast(units=3, free=4)
        >>> contrast(torch.randn(8, 3), torch.randn(8, 4), torch.randn(8, 3)).shape
        torch.Size([8])
    """

    def __init__(self, units: int, free: int, statistics: int = 2, hidden: int = 32) -> None:
        super().__init__()
        self.units, self.statistics = units, check_statistics(statistics)
        # one small network per unit, side by side in grouped layers
        self.inner = nn.Conv1d(units, units * hidden, 1, groups=units)
        self.outer = nn.Conv1d(units * hidden, units * statistics, 1, groups=units)
        self.of_image = nn.Sequential(nn.Linear(free, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.of_vector = nn.Sequential(nn.Linear(units, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, code: Tensor, image: Tensor, vector: Tensor) -> Tensor:
        """Log-odds ``[B]`` of codes ``[B, units]``, what ``a`` sees ``[B, free]`` and vectors ``[B, units]``."""
        weights = self.outer(self.inner(vector.unsqueeze(-1)).relu()).view(-1, self.units, self.statistics)
        told = (weights * statistics_of(code, self.statistics)).sum((1, 2))
        log_odds: Tensor = told + self.of_image(image).squeeze(-1) + self.of_vector(vector).squeeze(-1)
        return log_odds

    def loss(self, code: Tensor, image: Tensor, vector: Tensor, others: Tensor) -> Tensor:
        """Mean logistic loss, in nats, against other vectors ``[negatives, B, units]``; 2 log 2 knows nothing."""
        own = F.softplus(-self(code, image, vector)).mean()
        return own + torch.stack([F.softplus(self(code, image, other)).mean() for other in others]).mean()
