"""Flow: a ball in a cup of water that runs out of a hole (Yang et al., CausalVAE, CVPR 2021), from its equations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from episodes.datasets.base import DATASETS
from episodes.datasets.scenes import Scene, SceneDataset

LEFT, RIGHT, GROUND, FULL = 3.0, 8.0, 0.5, 5.0  # the cup's walls and ground, and how high its water stands at height 0
GRAVITY = 0.98
HALF_WIDTH, PIECES = 0.3, 12  # of the jet: half its width, and straight pieces that it is drawn in


class FlowScene(Scene):
    """A ball raises the water; water and hole make a jet. Channels: ball, water, jet. All in the scene's units.

    - ``ball``: its radius.
    - ``hole``: how high it lies above zero; the ground is at 0.5.
    - ``height``: of the water above 5; the ball's cube of radius, and the water that was there.
    - ``distance``: from the cup to where the jet meets the ground.
    """

    parents: ClassVar[dict[str, tuple[str, ...]]] = {
        "ball": (),
        "hole": (),
        "height": ("ball",),
        "distance": ("hole", "height"),
    }
    view = (2.5, 0.0, 13.0)

    def axes(self) -> dict[str, Tensor]:
        return {"ball": torch.arange(5, 35) / 30, "hole": torch.arange(6, 15) / 3, "height": torch.arange(10, 40) / 10}

    def effect(self, name: str, causes: Mapping[str, Tensor]) -> Tensor:
        if name == "height":
            return causes["ball"] ** 3
        return (2 * GRAVITY * causes["height"] * (causes["hole"] - GROUND)).clamp(min=0).sqrt()

    def bodies(self, factors: Mapping[str, Tensor]) -> list[Tensor]:
        radius, hole, height, distance = (factors[name] for name in self.parents)
        ball = self.disc(torch.full_like(radius, (LEFT + RIGHT) / 2), GROUND + radius, radius)
        sides = (torch.full_like(radius, number) for number in (LEFT, GROUND, RIGHT))
        left, ground, right = sides
        water = self.box(left, ground, right, ground + FULL + height)
        fall = [number / PIECES for number in range(PIECES + 1)]
        # a parabola: how far it has come goes with the root of how deep it has fallen
        at = [(RIGHT + distance * part, hole - (hole - GROUND) * part**2) for part in fall]
        jet = [self.segment(*one, *other, HALF_WIDTH) for one, other in pairwise(at)]
        return [ball, water, reduce(torch.minimum, jet)]


@DATASETS.register
@dataclass(frozen=True)
class Flow(SceneDataset):
    """A ball in a cup of water with a hole: 8,100 pictures of 30 balls, 9 holes and 30 fillings; a class is a ball.

    The height of the water follows from ball and filling, and how far the jet reaches from height and hole. 32 x 32 in
    three channels unless ``size`` says otherwise. The factors of each picture are `FlowScene`'s: ball, hole, height,
    distance.

    Example:
        >>> from episodes.datasets import make_dataset
        >>> bank = make_dataset("flow").load("test")
        >>> bank.num_classes, len(bank), bank.factors.names
        (7, 1890, ('ball', 'hole', 'height', 'distance'))
    """

    name = "flow"
    bands = 30

    @classmethod
    def scene_of(cls, size: int) -> Scene:
        return FlowScene(size)
