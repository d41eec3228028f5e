"""Distances of samples against scipy, loops and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from metagvae.evaluation.sample_quality import (
    bootstrap,
    frechet_distance,
    frechet_floor,
    kernel_distance,
    nearest,
    paired_bootstrap,
    precision_and_recall,
)


def normal(count: int, seed: int, shift: float = 0.0, scale: float = 1.0, size: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(count, size, generator=generator, dtype=torch.float64)


def test_frechet_is_scipys_and_the_closed_form() -> None:
    a, b = normal(300, 0), normal(200, 1, 0.5, 2.0)
    first, second = np.cov(a.numpy().T), np.cov(b.numpy().T)
    gap = np.square(a.numpy().mean(0) - b.numpy().mean(0)).sum()
    expected = gap + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    # isotropic Gaussians: |m - m'|^2 + D (s - s')^2
    assert frechet_distance(normal(200_000, 2), normal(200_000, 3, 0.5, 2.0)) == pytest.approx(5 * 0.25 + 5, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_the_kernel_distance_is_the_double_sum_and_unbiased() -> None:
    a, b = normal(12, 0), normal(9, 1, 0.5)

    def k(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 5 + 1) ** 3)

    expected = (
        sum(k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j) / (12 * 11)
        + sum(k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j) / (9 * 8)
        - 2 * sum(k(x, y) for x in a for y in b) / (12 * 9)
    )
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-10)
    same = torch.tensor([kernel_distance(normal(30, 2 * i), normal(30, 2 * i + 1)) for i in range(300)])
    assert abs(float(same.mean())) < 3 * float(same.std()) / 300**0.5


def test_precision_falls_for_images_off_the_manifold_and_recall_for_a_part_of_it() -> None:
    real = normal(400, 0)
    precise, recalled = precision_and_recall(real, normal(400, 1))
    assert precise > 0.9
    assert recalled > 0.9
    precise, recalled = precision_and_recall(real, normal(400, 1, scale=0.2))  # one spot alone
    assert precise > 0.95
    assert recalled < 0.4
    precise, _ = precision_and_recall(real, normal(400, 1, shift=9.0))
    assert precise == 0
    # by hand: reach of 0, 1, 3 with one neighbour is 1, 1, 2
    line, other = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[-0.5], [5.5], [5.0]])
    assert precision_and_recall(line, other, 1)[0] == pytest.approx(2 / 3)


def test_the_bootstrap_covers_and_a_paired_difference_is_narrower() -> None:
    def gap(real: Tensor, drawn: Tensor) -> float:
        return float((drawn.mean(0) - real.mean(0)).sum())

    covered = 0
    for i in range(60):
        found = bootstrap(gap, normal(60, 3 * i, size=1), normal(60, 3 * i + 1, 0.3, size=1), seed=i, draws=120)
        covered += found.low <= 0.3 <= found.high
    assert 50 <= covered <= 60
    real, first = normal(60, 0, size=1), normal(60, 1, 0.3, size=1)
    difference = paired_bootstrap(gap, real, first, first + 0.1)
    assert difference.value == pytest.approx(0.1)
    assert difference.high - difference.low < 1e-6  # the same draws of both
    assert str(bootstrap(gap, real, first)).count("[") == 1


def test_the_nearest_training_image_is_found() -> None:
    among = torch.rand(500, 1, 8, 8)
    images = among[[7, 300]] + 0.1
    distances, rows = nearest(images, among)
    assert rows.tolist() == [7, 300]
    assert distances.tolist() == pytest.approx([0.8, 0.8], rel=1e-3)


@pytest.mark.parametrize(("size", "count"), [(8, 300), (32, 500)])
def test_the_floor_is_the_distance_of_two_samples_without_a_difference(size: int, count: int) -> None:
    mix = normal(size, 5, size=size)
    pairs = [[normal(count, 2 * seed + side, size=size) @ mix for side in (0, 1)] for seed in range(20)]
    found = [frechet_distance(one, other) for one, other in pairs]
    assert frechet_floor(normal(5000, 99, size=size) @ mix, count) == pytest.approx(np.mean(found), rel=0.15)
    assert frechet_floor(pairs[0][0], 4 * count) < 0.4 * np.mean(found)
