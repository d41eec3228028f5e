"""Sources that an auxiliary variable modulates, mixed beyond recognition: data whose true components are known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from episodes import InputError
from episodes.counter_rng import check_seed

SLOPE = 0.2  # of the leaky ReLU for numbers below 0


@dataclass(frozen=True)
class Rows:
    """Mixed ``x`` ``[rows, sources]``, the ``sources`` of the same shape, and the ``segments`` ``[rows]``, int64."""

    x: Tensor
    sources: Tensor
    segments: Tensor

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Mixture:
    """Independent sources, whose mean and deviation depend on a segment, under an invertible mixing.

        x = A_L f(... f(A_2 f(A_1 s))),  f a leaky ReLU of slope 0.2, A orthogonal

    The first layer mixes: with the nonlinearity first, two layers are undone by one rotation, and a linear method
    passes. A mixing is a pure function of its seed.

    Args:
        sources: how many, and numbers per row.
        segments: values of the auxiliary variable; they change each source's mean and deviation.
        layers: of the mixing; 1 mixes linearly.
        base: gaussian | laplace; the sources' density, of unit variance.
        means: whether means differ between the segments, from -3 to 3, or deviations alone, from 0.1 to 3.
        seed: of the matrices, means and deviations.

    Raises:
        InputError: for another base, or fewer than two sources, two segments or one layer.

    Example:
        >>> from metagvae.studies.mixtures import Mixture
        >>> mixture = Mixture(sources=5, segments=40, layers=3)
        >>> mixture.draw(1000, seed=1).x.shape
        torch.Size([1000, 5])
    """

    sources: int = 5
    segments: int = 40
    layers: int = 3
    base: str = "gaussian"
    means: bool = True
    seed: int = 0
    location: Tensor = field(init=False, repr=False, compare=False)
    scale: Tensor = field(init=False, repr=False, compare=False)
    matrices: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_seed(self.seed, "--seed", 0)
        if self.base not in ("gaussian", "laplace"):
            raise InputError(f"sources are 'gaussian' or 'laplace'; received {self.base!r}.")
        if min(self.sources, self.segments) < 2 or self.layers < 1:
            raise InputError(
                "a mixture needs 2 sources, 2 segments and 1 layer or more; received "
                f"{self.sources}, {self.segments} and {self.layers}."
            )
        generator = np.random.default_rng([self.seed, 0])
        shape = (self.segments, self.sources)
        location = generator.uniform(-3, 3, shape) if self.means else np.zeros(shape)
        scale = generator.uniform(0.1, 3, shape)
        matrices = [_orthogonal(self.sources, generator) for _ in range(self.layers)]
        for name, value in (("location", location), ("scale", scale), ("matrices", np.stack(matrices))):
            object.__setattr__(self, name, torch.from_numpy(value))

    def draw(self, rows: int, seed: int) -> Rows:
        """Rows in float64, segments equally often but for the remainder; other seeds give other rows."""
        generator = np.random.default_rng([self.seed, 1, seed])
        segments = torch.from_numpy(generator.permutation(np.arange(rows) % self.segments))
        size = (rows, self.sources)
        noise = generator.normal(size=size) if self.base == "gaussian" else generator.laplace(0, 2**-0.5, size)
        sources = self.location[segments] + self.scale[segments] * torch.from_numpy(noise)
        return Rows(self.mix(sources), sources, segments)

    def mix(self, sources: Tensor) -> Tensor:
        """``[rows, sources]`` float64 of sources of the same shape."""
        x = sources
        for number, matrix in enumerate(self.matrices):
            x = (torch.nn.functional.leaky_relu(x, SLOPE) if number else x) @ matrix.T
        return x

    def unmix(self, x: Tensor) -> Tensor:
        """The sources of mixed rows: the inverse of `mix`."""
        for number, matrix in reversed(list(enumerate(self.matrices))):
            x = x @ matrix
            x = torch.nn.functional.leaky_relu(x, 1 / SLOPE) if number else x
        return x


def _orthogonal(size: int, generator: np.random.Generator) -> np.ndarray:
    """A random rotation or reflection, by the QR decomposition of Gaussian numbers."""
    q, r = np.linalg.qr(generator.normal(size=(size, size)))
    return q * np.sign(np.diag(r))
