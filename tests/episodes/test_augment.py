from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from episodes import AugmentConfig, ClassWarp, InputError, augment
from episodes import warp as warp_pictures
from episodes.augment import PARAMETERS, affine_matrix, cropped, recoloured, resample, sampling_grid, stroke_width


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


def points(images: torch.Tensor) -> torch.Tensor:
    """Centres of mass ``[..., 2]`` (right, up) of pictures ``[..., 1, H, W]``, in half sides from the middle."""
    side = images.shape[-1]
    axis = (torch.arange(side) + 0.5) * 2 / side - 1
    mass = images.sum((-3, -2, -1))
    return torch.stack((images.sum((-3, -2)) @ axis / mass, -(images.sum((-3, -1)) @ axis) / mass), -1)


def test_parameters_are_the_motion_that_the_picture_makes() -> None:
    """A dot off the middle lands where the parameters say, by complex numbers rather than by a matrix."""
    picture = torch.zeros(64, 1, 40, 40)
    picture[:, 0, 12:14, 26:28] = 1
    config = AugmentConfig(rotation=30, scale=0.2, shear=0.3, translation=0.1)
    torch.manual_seed(0)
    warped = warp_pictures(picture, config)
    assert warped.parameters.shape == (64, len(PARAMETERS))
    assert warped.parameters.abs().max() <= 1
    turn, log_x, log_y, shear, right, down, stroke = warped.parameters.double().unbind(-1)
    assert not stroke.any()
    x, y = points(picture).double().unbind(-1)
    x, y = x * (1.2**log_x), y * (1.2**log_y)
    x = x - 0.3 * shear * y  # image rows count downwards, so a positive shear leans to the left
    moved = torch.complex(x, y) * torch.polar(torch.ones_like(x), math.radians(30) * turn)
    expected = torch.stack((moved.real + 0.2 * right, moved.imag - 0.2 * down), -1)
    assert torch.allclose(points(warped.images).double(), expected, atol=0.03)


def test_parameters_without_a_limit_are_zero() -> None:
    config = AugmentConfig(rotation=10, translation=0.1)
    parameters = warp_pictures(torch.rand(2, 5, 1, 16, 16), config).parameters
    used = {PARAMETERS[i] for i in parameters.flatten(0, 1).any(0).nonzero().flatten().tolist()}
    assert parameters.shape == (2, 5, 7)
    assert used == {"rotation", "shift_x", "shift_y"}


def test_stroke_width_is_grey_dilation_and_erosion() -> None:
    images = torch.rand(3, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    amount = torch.tensor([1.0, -1.0, 0.0])
    wide, thin, same = stroke_width(images, amount)
    assert torch.allclose(wide, F.max_pool2d(images, 3, 1, 1)[0])
    assert torch.allclose(thin, -F.max_pool2d(-images, 3, 1, 1)[1])
    assert torch.equal(same, images[2])
    half = stroke_width(images[:1], torch.tensor([0.5]))
    assert torch.allclose(half, (images[:1] + wide) / 2)
    with pytest.raises(InputError, match=r"augment.stroke must be in \[0, 1\]"):
        AugmentConfig(stroke=1.5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_places_that_are_not_finite_give_values_that_are_not_and_no_gradient(bad: float) -> None:
    """torch's own kernel writes outside its memory there, in its backward pass."""
    torch.manual_seed(0)
    images = torch.rand(2, 1, 9, 9, requires_grad=True)
    grid = F.affine_grid(torch.eye(2, 3).repeat(2, 1, 1), [2, 1, 9, 9], align_corners=False).contiguous()
    plain = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    assert torch.equal(resample(images, grid), plain)
    grid[1, 3:, :, 0] = bad
    grid.requires_grad_()
    values = resample(images, grid)
    assert torch.equal(values[0], plain[0])
    rows = torch.arange(9)[:, None].expand(9, 9)
    assert torch.equal(torch.isnan(values[1, 0]), rows >= 3)
    values.nansum().backward()
    assert torch.isfinite(images.grad).all()
    huge = torch.where(torch.isfinite(grid), grid, 0.0).detach() * 1e38
    assert torch.isfinite(resample(images, huge)).all()
    resample(images, huge).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_grid_has_at_least_the_digits_of_float32(dtype: torch.dtype) -> None:
    theta = torch.eye(2, 3, dtype=dtype).expand(1, 2, 3)
    grid = sampling_grid(theta, (1, 1, 84, 84))
    assert grid.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    row = (2 * torch.arange(84, dtype=torch.float64) + 1) / 84 - 1
    assert torch.allclose(grid[0, 0, :, 0].double(), row, rtol=0, atol=1e-6)


def test_a_crop_is_a_window_of_the_picture_enlarged(picture: torch.Tensor) -> None:
    """Half of each side at two corners, beside torch's own enlargement."""
    whole = F.interpolate(picture[None, None], scale_factor=2, mode="bilinear", align_corners=False)[0, 0]
    still = torch.eye(2, 3).expand(2, 2, 3)
    theta = cropped(still, torch.full((2,), 0.5), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    shown = resample(picture.expand(2, 1, 8, 8), sampling_grid(theta, (2, 1, 8, 8)))[:, 0]
    assert torch.allclose(shown[0], whole[:8, :8], atol=1e-6)
    assert torch.allclose(shown[1], whole[8:, 8:], atol=1e-6)


def test_a_crop_shows_what_the_motion_shows(picture: torch.Tensor) -> None:
    """Turned and then cropped: the window of the turned picture."""
    zero = torch.zeros(1)
    turn = affine_matrix(torch.tensor([math.pi / 2]), zero, zero, zero, torch.zeros(1, 2))
    theta = cropped(turn, torch.tensor([0.5]), torch.tensor([[1.0, -1.0]]))
    shown = resample(picture[None, None], sampling_grid(theta, (1, 1, 8, 8)))[0, 0]
    turned = torch.rot90(picture, 1)
    whole = F.interpolate(turned[None, None], scale_factor=2, mode="bilinear", align_corners=False)[0, 0]
    assert torch.allclose(shown, whole[:8, 8:], atol=1e-5)


def test_crops_stay_within_the_picture_and_have_the_sides_asked_for() -> None:
    """Of a picture whose two channels are the places across and down."""
    across = torch.linspace(0, 1, 65).expand(65, 65)
    shown = augment(torch.stack((across, across.T)).expand(500, 2, 65, 65), AugmentConfig(crop=0.6))
    sides = shown[:, 0].amax((1, 2)) - shown[:, 0].amin((1, 2))
    assert 0.39 < sides.min() < 0.45
    assert 0.95 < sides.max() <= 1
    assert torch.allclose(
        sides, shown[:, 1].amax((1, 2)) - shown[:, 1].amin((1, 2)), atol=0.01
    )  # half a pixel at a border
    left = shown[:, 0].amin((1, 2))
    assert left.min() < 0.02
    assert left.max() > 0.4
    with pytest.raises(InputError, match=r"augment.crop must be less than 1"):
        AugmentConfig(crop=1)


def test_hues_turn_about_grey_as_scipys_rotation_does() -> None:
    pictures = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    angles, saturation = torch.tensor([0.0, 0.3, -1.0, 2.0, 3.0]), torch.tensor([1.0, 1.5, 0.5, 0.0, 1.0])
    shown = recoloured(pictures, saturation, angles)
    grey = pictures.mean(1, keepdim=True)
    for number, angle in enumerate(angles.tolist()):
        turn = Rotation.from_rotvec(np.ones(3) / math.sqrt(3) * angle).as_matrix()
        beside = np.einsum("ij,jhw->ihw", turn, (pictures - grey)[number].numpy())
        expected = grey[number].numpy() + float(saturation[number]) * beside
        assert np.allclose(shown[number].numpy(), expected, atol=1e-6)
    red = torch.zeros(1, 3, 1, 1)
    red[0, 0] = 1
    assert torch.allclose(recoloured(red, torch.ones(1), torch.tensor([2 * math.pi / 3])).flatten(), torch.eye(3)[1])


def test_colour_is_per_picture_keeps_grey_and_wants_three_channels() -> None:
    config = AugmentConfig(colour=0.4)
    grey = torch.rand(4, 1, 6, 6).expand(4, 3, 6, 6)
    assert torch.allclose(augment(grey, config), grey, atol=1e-6)
    same = torch.rand(1, 3, 6, 6).expand(4, 3, 6, 6)
    shown = augment(same, config)
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert len({tuple(row) for row in shown.flatten(1).round(decimals=3).tolist()}) == 4
    with pytest.raises(InputError, match="pictures of three channels; received 1"):
        augment(torch.rand(4, 1, 6, 6), config)


def test_a_shared_motion_comes_before_each_pictures_own_in_one_resampling(picture: torch.Tensor) -> None:
    """Against two resamplings of a picture that varies slowly, and exactly for a mirror image."""
    ramp = torch.linspace(0.2, 0.8, 32)
    smooth = (ramp[None, :] * (1 - ramp[:, None]))[None, None].expand(6, 1, 32, 32)
    matrices = ClassWarp(rotation=20, scale=0.2, shear=0.2, flip=0.5).matrices(3, torch.device("cpu"))
    shared = matrices.repeat_interleave(2, 0)
    own = AugmentConfig(rotation=10, scale=0.1, translation=0.05)
    torch.manual_seed(3)
    once = warp_pictures(smooth, own, shared=shared).images
    torch.manual_seed(3)
    twice = augment(resample(smooth, sampling_grid(shared, smooth.shape)), own)
    middle = slice(9, 23)
    assert (once - twice)[..., middle, middle].abs().max() < 2e-3
    assert (once - augment(smooth, own))[..., middle, middle].abs().max() > 0.02
    mirror = ClassWarp(flip=1.0).matrices(1, torch.device("cpu"))
    mirrored = warp_pictures(picture[None, None], AugmentConfig(), shared=mirror).images
    assert torch.allclose(mirrored[0, 0], picture.flip(-1), atol=1e-6)


def test_classes_are_drawn_apart_and_within_their_limits() -> None:
    torch.manual_seed(0)
    found = ClassWarp(rotation=30, scale=0.5, flip=0.25).matrices(4000, torch.device("cpu"))
    signs = torch.linalg.det(found[..., :2]).sign()
    assert float((signs < 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    upright = found[signs > 0, :, :2]
    angles = torch.atan2(upright[:, 0, 1], upright[:, 0, 0]).rad2deg()  # rows are turned, then scaled
    assert 29 < angles.abs().max() <= 30.001
    sizes = upright.norm(dim=-1)
    assert 1 / 1.5 - 1e-3 <= sizes.min() < 0.68
    assert 1.48 < sizes.max() <= 1.5 + 1e-3
    assert found[..., 2].abs().max() == 0
    assert torch.equal(ClassWarp().matrices(2, torch.device("cpu"))[0], torch.eye(3)[:2])


def test_class_warps_out_of_range_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"episodes\.class_warp\.flip"):
        ClassWarp(flip=1.5)
