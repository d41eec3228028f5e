"""Scenes: pictures drawn from factors, of which some cause others by known equations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from episodes.bank import Factors, ImageBank
from episodes.datasets.base import Dataset
from episodes.errors import InputError

# of four neighbouring bands of the class's factor, whose classes are which split's: no test class was trained on
SPLIT_BANDS = {"train": (0, 2), "validation": (1,), "test": (3,)}


class Scene(ABC):
    """Bodies drawn from factors; an effect is a function of its causes plus noise of its own.

    Args:
        size: side of the pictures in pixels.

    Attributes:
        parents: the causes of each factor, those of an effect before it.
        view: left, bottom and side of the square that is seen, in the scene's units.
    """

    parents: ClassVar[dict[str, tuple[str, ...]]]
    view: ClassVar[tuple[float, float, float]]

    def __init__(self, size: int) -> None:
        self.size = size

    @property
    def pixel(self) -> float:
        """Side of a pixel, in the scene's units."""
        return self.view[2] / self.size

    @abstractmethod
    def axes(self) -> dict[str, Tensor]:
        """Values of factors without a cause, and of what is added to an effect; each combination is a picture."""

    def grid(self) -> Tensor:
        """float32 ``[M, factors]``: the factors of every picture, effects without noise."""
        axes, found = self.axes(), dict[str, Tensor]()
        drawn = dict(zip(axes, torch.cartesian_prod(*axes.values()).float().unbind(-1), strict=True))
        for name, causes in self.parents.items():
            if not causes:
                found[name] = drawn[name]
            else:
                effect = self.effect(name, found)
                found[name] = effect + drawn[name] if name in drawn else effect
        return torch.stack(list(found.values()), -1)

    @abstractmethod
    def effect(self, name: str, causes: Mapping[str, Tensor]) -> Tensor:
        """The factor ``name`` of given causes, ``[B]``, without its noise."""

    @abstractmethod
    def bodies(self, factors: Mapping[str, Tensor]) -> list[Tensor]:
        """Signed distances to each body's outline, ``[B, size, size]`` in the scene's units, negative inside."""

    def render(self, factors: Tensor) -> Tensor:
        """float ``[B, bodies, size, size]`` in [0, 1] of factors ``[B, factors]``: a channel for each body."""
        distances = torch.stack(self.bodies(self.by_name(factors)), 1)
        return (0.5 - distances / self.pixel).clamp(0, 1)

    def by_name(self, factors: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.parents, factors.unbind(-1), strict=True))

    def intervene(self, factors: Tensor, do: Mapping[str, Tensor]) -> Tensor:
        """The factors ``[B, factors]`` that these would have been, had those in ``do`` been set to ``[B]``.

        Every effect keeps its noise; what depends on nothing in ``do`` keeps its very number.
        """
        before, after = self.by_name(factors), self.by_name(factors)
        moved = set(do)
        for name, causes in self.parents.items():
            if name in do:
                after[name] = do[name].to(factors).expand(len(factors))
            elif moved & set(causes):
                noise = before[name] - self.effect(name, before)
                after[name] = self.effect(name, after) + noise
                moved.add(name)
        return torch.stack(list(after.values()), -1)

    def noisy(self, noise: float) -> Tensor:
        """`grid`, a normal number of deviation ``noise`` added to each effect; the same at every call."""
        factors, generator = self.grid(), torch.Generator().manual_seed(0)
        for number, (name, causes) in enumerate(self.parents.items()):
            if causes and noise:
                clean = self.effect(name, self.by_name(self.grid()))
                own = factors[:, number] - clean
                drawn = noise * torch.randn(len(factors), generator=generator)
                factors[:, number] = self.effect(name, self.by_name(factors)) + own + drawn
        return factors

    def points(self) -> tuple[Tensor, Tensor]:
        """Right and up of each pixel's centre, ``[1, 1, size]`` and ``[1, size, 1]``, in the scene's units."""
        left, bottom, side = self.view
        steps = (torch.arange(self.size) + 0.5) / self.size * side
        return (left + steps)[None, None], (bottom + steps.flip(0))[None, :, None]

    def disc(self, x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
        right, up = self.points()
        return torch.hypot(right - _spread(x), up - _spread(y)) - _spread(radius)

    def segment(self, x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor, half_width: float) -> Tensor:
        right, up = self.points()
        x0, y0, x1, y1 = map(_spread, (x0, y0, x1, y1))
        along = ((right - x0) * (x1 - x0) + (up - y0) * (y1 - y0)) / ((x1 - x0).square() + (y1 - y0).square())
        along = along.clamp(0, 1)
        return torch.hypot(right - x0 - along * (x1 - x0), up - y0 - along * (y1 - y0)) - half_width

    def box(self, left: Tensor, bottom: Tensor, right: Tensor, top: Tensor) -> Tensor:
        x, y = self.points()
        left, bottom, right, top = map(_spread, (left, bottom, right, top))
        return torch.maximum(torch.maximum(left - x, x - right), torch.maximum(bottom - y, y - top))


def _spread(value: Tensor | float) -> Tensor:
    """A number per picture, before the axes of the pixels."""
    return torch.as_tensor(value)[..., None, None]


@dataclass(frozen=True)
class SceneDataset(Dataset):
    """Base of the drawn scenes. A class is a band of neighbouring values of the scene's first factor.

    Every other band is for training, and of those between them every other for the test. Nothing is read from
    ``root``.

    Args:
        noise: standard deviation of what is added to each effect, in the scene's units.
        labelled: share of the training pictures whose factors are known.
        hidden: factors that are known of no training picture.
    """

    default_size = 32
    channels = 3
    reads_root = False
    licence = "MIT (drawn by this package)"
    bands: ClassVar[int]

    noise: float = 0.0
    labelled: float = 1.0
    hidden: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.noise <= 10 or not 0 <= self.labelled <= 1:
            raise InputError(
                f"data.options of {self.name}: noise must be in [0, 10] and labelled in [0, 1]; received {self.noise} "
                f"and {self.labelled}."
            )
        names = list(self.scene().parents)
        if not set(self.hidden) <= set(names):
            raise InputError(
                f"data.options of {self.name}: hidden must name some of its factors, {', '.join(names)}; received "
                f"{', '.join(self.hidden)[:200]}."
            )

    @classmethod
    @abstractmethod
    def scene_of(cls, size: int) -> Scene:
        """The scene at a size of pictures."""

    def scene(self) -> Scene:
        """The scene that the pictures are drawn from."""
        return self.scene_of(self.side)

    def _rows(self, split: str) -> list[tuple[str, Tensor]]:
        """Name and picture numbers of each class of a split."""
        values, rank = self.scene().grid()[:, 0].unique(return_inverse=True)
        band = rank * self.bands // len(values)
        first = next(iter(self.scene().parents))
        found = []
        for number in range(self.bands):
            if number % 4 in SPLIT_BANDS[split]:
                rows = (band == number).nonzero().flatten()
                low, high = (float(values[rank[rows]].aminmax()[side]) for side in (0, 1))
                found.append((f"{first} {low:.2f} to {high:.2f}", rows))
        return found

    def sizes(self, split: str) -> list[int]:
        return [len(rows) for _, rows in self._rows(split)]

    def load_split(self, split: str) -> ImageBank:
        scene, classes = self.scene(), self._rows(split)
        factors = scene.noisy(self.noise)
        parts = [(name, (255 * scene.render(factors[rows])).round().to(torch.uint8)) for name, rows in classes]
        values = factors[torch.cat([rows for _, rows in classes])]
        if split == "train":
            values = self._told(values, list(scene.parents))
        known = Factors(values, tuple(scene.parents))
        return ImageBank.from_classes(parts, dataset=self.name, split=split, polarity="ink", factors=known)

    def _told(self, values: Tensor, names: list[str]) -> Tensor:
        """The factors with what is not known set to NaN."""
        told = values.clone()
        order = torch.randperm(len(told), generator=torch.Generator().manual_seed(0))
        told[order[round(self.labelled * len(told)) :]] = torch.nan
        told[:, [names.index(name) for name in self.hidden]] = torch.nan
        return told
