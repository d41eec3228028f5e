"""How far generated images are from real ones: Frechet and kernel distance, precision and recall, in given features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from episodes.counter_rng import seed_for

NEIGHBOURS = 3
DRAWS = 200  # of the bootstrap


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95 % interval by bootstrap over images."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 4 if abs(self.value) < 0.1 else 3 if abs(self.value) < 10 else 1
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def frechet_distance(real: Tensor, drawn: Tensor) -> float:
    """Squared Frechet distance between Gaussians fitted to features ``[n, D]`` and ``[m, D]``.

    ``|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))`` (Heusel et al., NeurIPS 2017, there of Inception's features).
    """
    real, drawn = real.double(), drawn.double()
    root = _root(torch.cov(real.T))
    cross = torch.linalg.eigvalsh(root @ torch.cov(drawn.T) @ root).clamp(min=0).sqrt().sum()
    gap = (real.mean(0) - drawn.mean(0)).square().sum()
    return float(gap + torch.cov(real.T).trace() + torch.cov(drawn.T).trace() - 2 * cross)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def frechet_floor(real: Tensor, count: int, seed: int = 0, draws: int = 10) -> float:
    """The mean Frechet distance between two samples of ``count`` from one normal density, which is 0 of endless ones.

    The density has the mean and covariance of ``real``. So far is the distance of such a count biased upwards, by about
    D / count, where there is no difference at all; it is not taken off.
    """
    real = real.double()
    factor, generator = _root(torch.cov(real.T)), torch.Generator().manual_seed(seed_for(seed, 10))

    def sample() -> Tensor:
        return torch.randn(count, real.shape[1], generator=generator, dtype=torch.float64).to(real.device) @ factor

    return sum(frechet_distance(sample(), sample()) for _ in range(draws)) / draws


def kernel_distance(real: Tensor, drawn: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy under ``(x.y / D + 1)^3`` (KID; Binkowski et al., ICLR 2018)."""
    real, drawn = real.double(), drawn.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        k = kernel(x, x)
        return (k.sum() - k.diagonal().sum()) / (len(x) * (len(x) - 1))

    return float(within(real) + within(drawn) - 2 * kernel(real, drawn).mean())


def precision_and_recall(real: Tensor, drawn: Tensor, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Shares of drawn images within real ones' reach, and of real within drawn (Kynkaanniemi et al., NeurIPS 2019).

    An image reaches as far as its ``neighbours``-th nearest image of its own kind.
    """
    across = torch.cdist(real.double(), drawn.double())

    def reach(x: Tensor) -> Tensor:
        return torch.cdist(x.double(), x.double()).kthvalue(neighbours + 1, 1).values  # the nearest is itself

    precise = (across <= reach(real)[:, None]).any(0)
    recalled = (across <= reach(drawn)[None]).any(1)
    return float(precise.double().mean()), float(recalled.double().mean())


def bootstrap(
    measure: Callable[[Tensor, Tensor], float], real: Tensor, drawn: Tensor, seed: int = 0, draws: int = DRAWS
) -> Estimate:
    """A distance with its interval: both kinds of images are drawn anew with replacement.

    Repeated images bias a distance upwards, so the interval is the middle 95 % of the drawn ones moved to lie about
    the estimate by their own mean. It says how far another draw of so many images may lie from this one, and holds the
    bias of the measure itself at that count (`frechet_floor`): figures of different counts do not compare.
    """
    value = measure(real, drawn)
    found = torch.tensor([measure(real[rows], drawn[columns]) for rows, columns in _draws(real, drawn, seed, draws)])
    low, high = torch.quantile(found - found.mean(), torch.tensor([0.025, 0.975])).tolist()
    return Estimate(value, value + low, value + high)


def paired_bootstrap(
    measure: Callable[[Tensor, Tensor], float],
    real: Tensor,
    first: Tensor,
    second: Tensor,
    seed: int = 0,
    draws: int = DRAWS,
) -> Estimate:
    """How much greater the distance of ``second`` is than that of ``first``, on the same draws of real images."""
    value = measure(real, second) - measure(real, first)
    found = torch.tensor(
        [
            measure(real[rows], second[columns % len(second)]) - measure(real[rows], first[columns])
            for rows, columns in _draws(real, first, seed, draws)
        ]
    )
    low, high = torch.quantile(found - found.mean(), torch.tensor([0.025, 0.975])).tolist()
    return Estimate(value, value + low, value + high)


def _draws(real: Tensor, drawn: Tensor, seed: int, count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed_for(seed, 8))
    return [
        (
            torch.randint(len(real), (len(real),), generator=generator),
            torch.randint(len(drawn), (len(drawn),), generator=generator),
        )
        for _ in range(count)
    ]


def nearest(images: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance of pixels to the nearest of ``among``, ``[n]``, and which it is.

    Args:
        images, among: ``[n, C, H, W]`` and ``[m, C, H, W]`` in [0, 1].
    """
    found = [torch.cdist(part.flatten(1), among.flatten(1)).min(1) for part in images.split(200)]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])
