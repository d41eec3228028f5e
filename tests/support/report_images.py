"""Folders of images of a report, some of names that are markup."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HOSTILE = "<img src=x onerror=alert(1)>"


def draw_classes(root: Path, splits: dict[str, int], each: int = 8) -> None:
    """Folders of dark rings and bars on white, each test class with a name that is markup."""
    rng = np.random.default_rng(0)
    for split, classes in splits.items():
        for number in range(classes):
            folder = root / split / (f"{HOSTILE}{number}" if split == "test" else f"{split}{number}")
            folder.mkdir(parents=True)
            y, x = np.mgrid[-1:1:28j, -1:1:28j]
            for picture in range(each):
                angle = np.pi * number / classes + 0.05 * rng.normal()
                wave = np.cos(9 * (x * np.cos(angle) + y * np.sin(angle)))
                Image.fromarray((127 + 100 * wave + 20 * rng.random((28, 28))).astype(np.uint8)).save(
                    folder / f"{picture}.png"
                )
