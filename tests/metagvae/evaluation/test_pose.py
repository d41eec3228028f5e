"""The pose of an image against warps that are known, drawn by scipy, which shares no code with the package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter

from metagvae.evaluation.pose import POSES, pose

SIDE = 84


def letter() -> np.ndarray:
    """An F with a tail: no symmetry."""
    image = np.zeros((SIDE, SIDE))
    image[24:60, 30:36] = image[24:30, 30:54] = image[38:43, 30:46] = image[55:60, 36:42] = 1
    return gaussian_filter(image, 1.0)


def moved(angle: float = 0, width: float = 0, height: float = 0, shear: float = 0, right: float = 0, down: float = 0):
    """The letter under a motion about the middle, by scipy, which asks where each point comes from, rows first."""
    turn = np.deg2rad(-angle)  # y points down
    motion = (
        np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        @ np.array([[1, shear / 100], [0, 1]])
        @ np.diag([1 + width / 100, 1 + height / 100])
    )
    back = np.linalg.inv(motion)[::-1, ::-1]  # (y, x)
    middle = np.full(2, (SIDE - 1) / 2)
    return affine_transform(letter(), back, middle - back @ (middle + np.array([down, right])), order=3)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [0, 0, 0, 0, 0, 0]),
        ({"angle": 20}, [20, 0, 0, 0, 0, 0]),
        ({"angle": -35}, [-35, 0, 0, 0, 0, 0]),
        ({"width": 25}, [0, 25, 0, 0, 0, 0]),
        ({"height": -20}, [0, 0, -20, 0, 0, 0]),
        ({"shear": 30}, [0, 0, 0, 30, 0, 0]),
        ({"right": 5}, [0, 0, 0, 0, 5, 0]),
        ({"down": -7}, [0, 0, 0, 0, 0, -7]),
        ({"angle": 15, "width": 20, "height": -10, "shear": -15, "right": 3, "down": 4}, [15, 20, -10, -15, 3, 4]),
    ],
)
def test_known_motions_are_found(change: dict[str, float], expected: list[float]) -> None:
    images = [torch.from_numpy(image.clip(0, 1))[None, None] for image in (moved(**change), moved())]
    found = pose(*images)[0]
    for name, value, right in zip(POSES, found.tolist(), expected, strict=True):
        assert value == pytest.approx(right, abs=0.6), name


def test_each_image_is_measured_by_itself_and_no_ink_has_no_pose() -> None:
    images = torch.stack([torch.from_numpy(moved(angle=angle).clip(0, 1))[None] for angle in (10.0, 0.0, -10.0)])
    references = images[1:2].expand(3, -1, -1, -1)
    together = pose(images, references)
    alone = torch.cat([pose(images[i : i + 1], references[:1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-4)
    assert together[0, 0] == pytest.approx(-float(together[2, 0]), abs=0.5)
    empty = pose(torch.zeros(1, 1, SIDE, SIDE), references[:1])
    assert torch.isnan(empty).all()
