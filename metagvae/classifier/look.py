"""The look of images: five numbers in which drawings, photographs and what an encoder was trained on differ."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from episodes import InputError

SIDE = 32  # pixels, in three colours, at which images are looked at
NUMBERS = ("colour", "ink", "ground", "width", "between")
_PLAIN = 0.1  # brightness from the ground's up to which a pixel belongs to it
_LEAST = 0.05  # deviation of a number over images, where it hardly varies among those fitted on
_GREY = 0.01  # mean distance between the channels up to which an image has no colour
_MOST = 25  # images that count as independent: a larger set has pens and hands of its own


def looks(images: Tensor) -> Tensor:
    """`NUMBERS` ``[n, 5]`` of images ``[n, 3, SIDE, SIDE]`` in [0, 1].

    Colour, the mean distance between the channels; ink, the mean distance of brightness from the ground's, which is the
    border's median; the share of pixels that are ground; the width of strokes, ink over the length of its edges; the
    share of the rest that is neither ground nor as far from it as the darkest. Each as a logarithm, shares as log-odds.
    """
    grey = images.mean(1)
    borders = [grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]]
    ground = torch.cat(borders, 1).quantile(0.5, 1)
    ink = (grey - ground[:, None, None]).abs()
    edges = ink.diff(dim=1).abs().sum((1, 2)) + ink.diff(dim=2).abs().sum((1, 2))
    full = ink.flatten(1).quantile(0.99, 1).clamp(min=_PLAIN)[:, None, None]
    covered = ink > _PLAIN
    between = (covered & (ink < 0.75 * full)).float().sum((1, 2)) / covered.float().sum((1, 2)).clamp(min=1)
    return torch.stack(
        [
            (images.amax(1) - images.amin(1)).mean((1, 2)).add(0.02).log(),
            ink.mean((1, 2)).add(0.01).log(),
            _log_odds((~covered).float().mean((1, 2))),
            (ink.sum((1, 2)) / edges.clamp(min=1e-3)).add(0.1).log(),
            _log_odds(between),
        ],
        1,
    )


def _log_odds(share: Tensor) -> Tensor:
    inner = 0.02 + 0.96 * share
    return (inner / (1 - inner)).log()


@dataclass(frozen=True)
class Look:
    """A Gaussian of the look of the images that an encoder was trained on.

    Args:
        mean: of each of `NUMBERS`.
        covariance: of them, row by row.
        fitted_on: which images.
    """

    mean: list[float]
    covariance: list[list[float]]
    fitted_on: str = "nothing"

    @classmethod
    def of(cls, images: Tensor, fitted_on: str) -> Look:
        """That of images ``[n, 3, SIDE, SIDE]`` in [0, 1]."""
        found = looks(images).double().numpy()
        covariance = np.cov(found.T) + _LEAST**2 * np.eye(len(NUMBERS))
        rounded = [[round(float(value), 4) for value in row] for row in covariance]
        return cls([round(float(value), 4) for value in found.mean(0)], rounded, fitted_on)

    @classmethod
    def read(cls, details: dict[str, Any]) -> Look | None:
        """The one in an encoder's card, or None.

        Raises:
            InputError: if it is none.
        """
        stored = details.get("look")
        if stored is None:
            return None
        try:
            made = cls(**stored)
            mean, covariance = np.array(made.mean, dtype=float), np.array(made.covariance, dtype=float)
            shaped = mean.shape == (len(NUMBERS),) and covariance.shape == (len(NUMBERS), len(NUMBERS))
            if shaped and np.isfinite(mean).all() and np.isfinite(covariance).all():
                np.linalg.cholesky(covariance)
                return made
        except (TypeError, ValueError, np.linalg.LinAlgError):
            pass
        raise InputError(f"the encoder's card holds a look that is no Gaussian of five numbers: {repr(stored)[:200]}.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def surprise(self, found: Tensor) -> Tensor:
        """Minus the log density ``[n]`` of looks ``[n, 5]``; colour does not count where no image has any."""
        squares, root = self._apart(found, found)
        nats: Tensor = squares / 2 + root.diagonal().log().sum() + len(root) * math.log(2 * math.pi) / 2
        return nats

    def alike(self, found: Tensor) -> float:
        """The probability that the mean of as many images of those fitted on lies as far from theirs (Hotelling).

        Args:
            found: looks ``[n, 5]``; colour does not count where no image has any.
        """
        squares, root = self._apart(found.mean(0, keepdim=True), found)
        return float(chi2.sf(min(len(found), _MOST) * float(squares), len(root)))

    def _apart(self, rows: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Squared Mahalanobis distances of rows, and the root of the covariance, of the numbers that count."""
        first = int(bool((found[:, 0].exp() - 0.02 <= _GREY).all()))
        covariance = torch.tensor(self.covariance, dtype=torch.float64)[first:, first:]
        root = torch.linalg.cholesky(covariance)
        gaps = rows.double()[:, first:] - torch.tensor(self.mean, dtype=torch.float64)[first:]
        return torch.linalg.solve_triangular(root, gaps.T, upper=False).square().sum(0), root
