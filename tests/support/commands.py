"""The command line called in this process, and pictures to call it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metagvae.cli import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def pictures(root: Path, classes: int = 12, per_class: int = 6) -> Path:
    """A folder of small coloured pictures whose classes can be told apart."""
    rng = np.random.default_rng(0)
    for number in range(classes):
        folder = root / f"kind{number:02d}"
        folder.mkdir(parents=True)
        colour = rng.integers(40, 215, 3)
        for index in range(per_class):
            noise = rng.normal(0, 15, (40, 50, 3))
            array = np.clip(colour + noise, 0, 255).astype(np.uint8)
            Image.fromarray(array).save(folder / f"{index}.{'png' if index % 2 else 'jpg'}")
    return root


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        status = main(list(arguments))
    except SystemExit as stop:
        status = int(stop.code or 0)
    out = capsys.readouterr()
    return status, out.out, out.err


FAST = [
    "--optim.steps",
    "4",
    "--validation.every",
    "4",
    "--validation.episodes",
    "5",
    "--encoder.width",
    "8",
    "--data.size",
    "32",
]
