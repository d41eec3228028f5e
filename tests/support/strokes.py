"""Arrays of strokes for the classifier."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def strokes(per_class: int, seed: int, classes: int = 6, side: int = 48) -> tuple[Array, Array]:
    """uint8 ``[n, side, side]``, bright strokes on black, and the labels: lines of so many angles."""
    rng = np.random.default_rng(seed)
    images = np.zeros((classes * per_class, side, side), np.uint8)
    grid = np.mgrid[:side, :side] - side / 2
    for row, image in enumerate(images):
        angle = np.pi * (row // per_class) / classes + rng.normal(0, 0.05)
        across = np.cos(angle) * grid[0] + np.sin(angle) * grid[1] + rng.normal(0, 1.5)
        along = np.abs(-np.sin(angle) * grid[0] + np.cos(angle) * grid[1])
        image[(np.abs(across) < 2.5) & (along < 18)] = 255
    return images, np.arange(classes).repeat(per_class)
