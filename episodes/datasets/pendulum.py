"""Pendulum: a lamp, a pendulum and its shadow (Yang et al., CausalVAE, CVPR 2021), drawn from the scene's equations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from episodes.datasets.base import DATASETS
from episodes.datasets.scenes import Scene, SceneDataset

PIVOT = (10.0, 10.5)
ROD, TIP, BALL, SUN = 8.0, 9.5, 1.5, 3.0  # lengths from the pivot to the ball's centre and end; radii
LAMP, GROUND = 20.5, -0.5  # how high the sun and the shadow lie
HALF_WIDTH = 0.54  # of the rod and the shadow
SHORTEST = 3.0  # a shadow


class PendulumScene(Scene):
    """Angle and light cast a shadow, which has a length and a middle. Channels: sun, pendulum, shadow.

    - ``angle``: of the rod from the vertical, in degrees.
    - ``light``: direction of the parallel rays from the horizontal, in degrees; 90 is straight from above.
    - ``length``, ``middle``: of the shadow on the ground, in units of a twentieth of the scene.
    """

    parents: ClassVar[dict[str, tuple[str, ...]]] = {
        "angle": (),
        "light": (),
        "length": ("angle", "light"),
        "middle": ("angle", "light"),
    }
    view = (-2.75, -1.75, 25.5)

    def axes(self) -> dict[str, Tensor]:
        steps = torch.tensor([step for step in range(60, 148) if step != 100])  # 100 is the tangent's pole
        return {"angle": 0.9 * torch.arange(-40, 44), "light": 0.9 * steps}

    def effect(self, name: str, causes: Mapping[str, Tensor]) -> Tensor:
        angle, slope = torch.deg2rad(causes["angle"]), torch.tan(torch.deg2rad(causes["light"]))
        from_pivot = PIVOT[0] - (PIVOT[1] - GROUND) / slope
        tip_x, tip_y = PIVOT[0] + TIP * angle.sin(), PIVOT[1] - TIP * angle.cos()
        from_tip = tip_x - (tip_y - GROUND) / slope
        if name == "length":
            return (from_pivot - from_tip).abs().clamp(min=SHORTEST)
        return (from_pivot + from_tip) / 2

    def bodies(self, factors: Mapping[str, Tensor]) -> list[Tensor]:
        angle, light = torch.deg2rad(factors["angle"]), torch.deg2rad(factors["light"])
        sun = self.disc(PIVOT[0] + (LAMP - PIVOT[1]) / torch.tan(light), torch.full_like(light, LAMP), SUN)
        x, y = PIVOT[0] + ROD * angle.sin(), PIVOT[1] - ROD * angle.cos()
        pivot_x, pivot_y = (torch.full_like(x, number) for number in PIVOT)
        pendulum = torch.minimum(self.segment(pivot_x, pivot_y, x, y, HALF_WIDTH), self.disc(x, y, BALL))
        half, ground = factors["length"] / 2, torch.full_like(x, GROUND)
        left, right = factors["middle"] - half, factors["middle"] + half
        return [sun, pendulum, self.box(left, ground - HALF_WIDTH, right, ground + HALF_WIDTH)]


@DATASETS.register
@dataclass(frozen=True)
class Pendulum(SceneDataset):
    """A pendulum under a lamp: 7,308 pictures of 84 angles and 87 directions of light; a class is a band of angles.

    The shadow follows from angle and light. 32 x 32 in three channels unless ``size`` says otherwise. The factors of
    each picture are `PendulumScene`'s: angle, light, length, middle.

    Example:
        >>> from episodes.datasets import make_dataset
        >>> bank = make_dataset("pendulum").load("test")
        >>> bank.num_classes, len(bank), bank.factors.names
        (7, 1827, ('angle', 'light', 'length', 'middle'))
    """

    name = "pendulum"
    bands = 28

    @classmethod
    def scene_of(cls, size: int) -> Scene:
        return PendulumScene(size)
