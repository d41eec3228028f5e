from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from episodes import AugmentConfig, augment
from episodes.augment import affine_matrix


def warp(picture: torch.Tensor, **motion: float) -> torch.Tensor:
    value = {name: torch.tensor([motion.get(name, 0.0)]) for name in ("angle", "log_x", "log_y", "shear")}
    shift = torch.tensor([[motion.get("right", 0.0), motion.get("down", 0.0)]])
    theta = affine_matrix(value["angle"], value["log_x"], value["log_y"], value["shear"], shift)
    grid = F.affine_grid(theta, [1, 1, *picture.shape], align_corners=False)
    return F.grid_sample(picture[None, None], grid, align_corners=False)[0, 0]


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand(8, 8, generator=torch.Generator().manual_seed(0))


def test_zero_motion_is_the_identity(picture: torch.Tensor) -> None:
    assert torch.allclose(warp(picture), picture, atol=1e-6)


def test_a_quarter_turn_is_rot90(picture: torch.Tensor) -> None:
    assert torch.allclose(warp(picture, angle=math.pi / 2), torch.rot90(picture, 1), atol=1e-5)


def test_a_shift_moves_right_and_down(picture: torch.Tensor) -> None:
    moved = warp(picture, right=2 * 2 / 8, down=2 * 3 / 8)
    assert torch.allclose(moved[3:, 2:], picture[:-3, :-2], atol=1e-5)
    assert moved[:3].abs().max() < 1e-5


def test_a_larger_scale_magnifies() -> None:
    picture = torch.zeros(16, 16)
    picture[6:10, 6:10] = 1
    wide = warp(picture, log_x=math.log(2.0))
    assert float(wide.sum()) == pytest.approx(2 * float(picture.sum()), rel=0.05)
    assert (wide.sum(0) > 0.5).sum() > (picture.sum(0) > 0.5).sum()
    assert (wide.sum(1) > 0.5).sum() == (picture.sum(1) > 0.5).sum()


def test_shear_moves_rows_against_each_other() -> None:
    picture = torch.zeros(16, 16)
    picture[:, 7:9] = 1
    sheared = warp(picture, shear=0.5)
    centre = (sheared * torch.arange(16)).sum(1) / sheared.sum(1)
    assert abs(float(centre[12] - centre[3])) == pytest.approx(9 * 0.5, abs=0.3)


def test_order_of_motions_is_scale_shear_turn_shift(picture: torch.Tensor) -> None:
    """The matrix is the inverse of shift * turn * shear * scale, written out."""
    angle, shear, log_x, log_y, right, down = 0.3, 0.2, 0.1, -0.2, 0.3, -0.1
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
    motion = turn @ torch.tensor([[1, shear], [0, 1]], dtype=torch.float64)
    motion = motion @ torch.diag(torch.tensor([log_x, log_y], dtype=torch.float64).exp())
    inverse = motion.inverse()
    column = -inverse @ torch.tensor([right, down], dtype=torch.float64)
    one = lambda v: torch.tensor([v], dtype=torch.float64)  # noqa: E731
    theta = affine_matrix(one(angle), one(log_x), one(log_y), one(shear), torch.tensor([[right, down]]).double())
    assert torch.allclose(theta[0], torch.cat((inverse, column[:, None]), 1))


def test_augmentation_is_per_picture_in_range_and_seeded() -> None:
    images = torch.rand(2, 3, 4, 1, 16, 16)
    config = AugmentConfig(15, 0.2, 0.2, 0.1, 0.03, 0.5, 0.2)
    torch.manual_seed(1)
    one = augment(images, config)
    torch.manual_seed(1)
    assert torch.equal(one, augment(images, config))
    assert one.shape == images.shape
    assert 0 <= one.min() <= one.max() <= 1
    same = augment(images[:1, :1, :1].expand(2, 3, 4, 1, 16, 16), config)
    assert not torch.allclose(same[0, 0, 0], same[1, 2, 3], atol=1e-2)
    assert torch.equal(augment(images, AugmentConfig()), images)


def test_flip_mirrors() -> None:
    images = torch.rand(3, 1, 8, 8)
    assert torch.allclose(augment(images, AugmentConfig(flip=1.0)), images.flip(-1), atol=1e-5)
