"""Capture: each step against another library's, what an episode shares, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from episodes import AugmentConfig, InputError, augment
from episodes.batch_share import Share, holding
from episodes.capture import CaptureConfig, blur_matrix, capture, frame_matrix, ink_box, resolution_matrix

EVERYTHING = CaptureConfig(0.5, 0.2, 1.0, 0.07, 8, 0.05, 0.3, 0.05, 0.5)
SIDE = 28


def drawing(seed: int = 0) -> Tensor:
    """A stroke from corner to corner of a box off the middle, ``[1, 28, 28]``."""
    generator = torch.Generator().manual_seed(seed)
    top, left, size = (int(torch.randint(*span, (), generator=generator)) for span in ((1, 10), (1, 10), (11, 15)))
    picture = torch.zeros(1, SIDE, SIDE)
    for step in range(size):
        picture[0, top + step, left + step : left + step + 2] = 1
    return picture


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def along(matrix: Tensor, picture: Tensor) -> Tensor:
    return matrix @ picture @ matrix.transpose(-1, -2)


@pytest.mark.parametrize("sigma", [0.0, 0.4, 1.3, 3.0])
def test_blur_is_scipys_gaussian(sigma: float) -> None:
    picture = torch.rand(SIDE, SIDE, generator=seeded())
    ours = along(blur_matrix(torch.tensor([sigma]), SIDE), picture)[0]
    theirs = gaussian_filter(picture.double().numpy(), sigma, mode="constant", truncate=9) if sigma else picture.numpy()
    assert np.allclose(ours.numpy(), theirs, atol=1e-4)


@pytest.mark.parametrize("pixels", [8, 13, 27, 28])
def test_resolution_is_torchs_reduction_and_enlargement(pixels: int) -> None:
    picture = torch.rand(SIDE, SIDE, generator=seeded())
    ours = along(resolution_matrix(torch.tensor([pixels]), SIDE), picture)[0]
    small = F.interpolate(picture[None, None], (pixels, pixels), mode="bilinear", antialias=True)
    theirs = F.interpolate(small, (SIDE, SIDE), mode="bilinear")[0, 0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_larger_frame_is_torchs_bilinear_sampling() -> None:
    picture = torch.rand(SIDE, SIDE, generator=seeded())
    scale, centre, place = 1.7, 11.0, 16.5
    matrix = frame_matrix(torch.tensor([scale]), torch.tensor([centre]), torch.tensor([place]), SIDE)
    source = (torch.arange(SIDE) + 0.5 - place) / scale + centre
    axis = source * 2 / SIDE - 1
    grid = torch.stack((axis.expand(SIDE, -1), axis[:, None].expand(-1, SIDE)), -1)[None]
    theirs = F.grid_sample(picture[None, None], grid, padding_mode="zeros", align_corners=False)[0, 0]
    assert torch.allclose(along(matrix, picture)[0], theirs, atol=1e-5)


def test_a_smaller_frame_keeps_the_ink_there_is() -> None:
    picture = torch.zeros(SIDE, SIDE)
    picture[6:22, 10:18] = 1
    matrix = frame_matrix(torch.tensor([0.5]), torch.tensor([14.0]), torch.tensor([14.0]), SIDE)
    small = along(matrix, picture)[0]
    assert float(small.sum()) == pytest.approx(float(picture.sum()) / 4, rel=0.01)
    assert float(small.max()) == pytest.approx(1, abs=1e-5)


def test_where_the_ink_lies() -> None:
    pictures = torch.zeros(2, SIDE, SIDE)
    pictures[0, 4:10, 8:20] = 1
    middle, extent, mass = ink_box(pictures)
    assert middle.tolist() == [[7, 14], [14, 14]]  # of no ink, the whole picture
    assert extent.tolist() == [12, 28]
    assert torch.allclose(mass, middle)


@pytest.mark.parametrize("seed", range(5))
def test_a_framed_picture_fills_the_side(seed: int) -> None:
    framed = capture(drawing(seed), CaptureConfig(fit=1))
    (middle,), (extent,), _ = ink_box(framed)
    assert abs(float(extent) - SIDE) <= 1
    assert (middle - SIDE / 2).abs().max() <= 1


def test_the_margin_bounds_where_framed_ink_may_lie() -> None:
    pictures = torch.stack([drawing(seed) for seed in range(20)]).repeat(10, 1, 1, 1)
    framed = capture(pictures, CaptureConfig(fit=1, margin=0.25, offset=1), seeded())
    middle, extent, _ = ink_box(framed[:, 0])
    assert SIDE / 2 - 1.5 <= extent.min() < extent.max() <= SIDE
    room = (SIDE - extent) / 2
    assert ((middle - SIDE / 2).abs() <= room[:, None] + 1.5).all()
    assert (middle - SIDE / 2).abs().max() > 3


def test_a_dot_stays_a_dot() -> None:
    dot = torch.zeros(1, SIDE, SIDE)
    dot[0, 3:5, 3:5] = 1
    assert float(ink_box(capture(dot, CaptureConfig(fit=1)))[1]) <= 7


def test_a_broader_pen_leaves_more_ink_as_bright_as_before() -> None:
    pictures = drawing().expand(400, 1, SIDE, SIDE)
    inked = capture(pictures, CaptureConfig(pen=0.08), seeded())
    assert torch.allclose(inked.amax((1, 2, 3)), torch.ones(400))
    areas = (inked > 0.5).sum((1, 2, 3)).float() / (pictures[0] > 0.5).sum()
    assert areas.min() > 0.3  # and, at times, a thinner one
    assert areas.quantile(0.5) > 1.2
    assert areas.max() > 2.5


def test_few_pixels_lose_detail_and_no_brightness() -> None:
    pictures = drawing().expand(50, 1, SIDE, SIDE)
    coarse = capture(pictures, CaptureConfig(resolution=8), seeded())
    assert torch.allclose(coarse.sum((1, 2, 3)), pictures.sum((1, 2, 3)), rtol=0.05)
    assert coarse.amax((1, 2, 3)).min() < 0.6


@pytest.mark.parametrize("together", [0.0, 0.6, 1.0])
def test_what_an_episode_shares(together: float) -> None:
    """The same drawing in each place: of one capture only if the episode shares all."""
    images = drawing().expand(3, 4, 5, 1, SIDE, SIDE)
    captured = capture(images, CaptureConfig(1, 0.3, 1, 0.08, 8, 0.05, 0.3, 0, together), seeded()).flatten(1, 2)
    within = (captured - captured[:, :1]).abs().amax((2, 3, 4))[:, 1:]
    between = (captured[:1] - captured[1:]).abs().amax((2, 3, 4))
    assert between.min() > 0.1
    assert (within.max() < 1e-6) if together == 1 else (within.min() > 0.03)
    apart = [(captured - captured.mean(axes, keepdim=True)).square().mean() for axes in ((1,), (0, 1))]
    assert apart[0] < apart[1] * {0.0: 1.01, 0.6: 0.9, 1.0: 1e-6}[together]


def test_nothing_asked_for_is_nothing_done() -> None:
    images = torch.rand(2, 3, 4, 1, SIDE, SIDE, generator=seeded())
    assert torch.equal(augment(images, AugmentConfig(capture=CaptureConfig(together=1)), seeded()), images)
    config = AugmentConfig(rotation=10, elastic=0.03, stroke=0.5, brightness=0.1)
    captured = replace(config, capture=CaptureConfig())
    assert torch.equal(augment(images, config, seeded()), augment(images, captured, seeded()))


def test_every_step_is_seeded_in_range_and_leaves_the_source_alone() -> None:
    images = torch.rand(2, 3, 4, 1, SIDE, SIDE, generator=seeded())
    kept = images.clone()
    one = augment(images, AugmentConfig(capture=EVERYTHING), seeded(1))
    assert torch.equal(one, augment(images, AugmentConfig(capture=EVERYTHING), seeded(1)))
    assert not torch.allclose(one, augment(images, AugmentConfig(capture=EVERYTHING), seeded(2)))
    assert one.shape == images.shape
    assert 0 <= one.min() <= one.max() <= 1
    assert torch.equal(images, kept)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(one, augment(images, AugmentConfig(capture=EVERYTHING), seeded(1)))
    black = augment(torch.zeros(3, 1, SIDE, SIDE), AugmentConfig(capture=EVERYTHING), seeded())
    assert torch.isfinite(black).all()


def test_processes_that_share_a_batch_draw_what_one_would() -> None:
    images = torch.rand(4, 3, 2, 1, SIDE, SIDE, generator=seeded())
    whole = capture(images, EVERYTHING, seeded())
    parts = []
    for first in (0, 2):
        with holding(Share(first, 2, 4)):
            parts.append(capture(images[first : first + 2], EVERYTHING, seeded()))
    assert torch.allclose(torch.cat(parts), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit": 1.5}, r"augment.capture.fit must be in \[0, 1\]; received 1.5"),
        ({"margin": 0.5}, r"augment.capture.margin must be in \[0, 0.45\]"),
        ({"resolution": -1}, "augment.capture.resolution must be at least 0"),
        ({"noise": float("nan")}, "augment.capture.noise must be in"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CaptureConfig(**settings)  # type: ignore[arg-type]


def test_pictures_that_are_not_square_are_refused() -> None:
    with pytest.raises(InputError, match="square"):
        capture(torch.rand(2, 1, 20, 24), EVERYTHING)
