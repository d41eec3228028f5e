"""MNIST's styles: slant and weight of strokes that are drawn with both known, and the classes made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from episodes.datasets import make_dataset
from episodes.datasets.mnist_styles import SLANT_THIRDS, WEIGHT_THIRDS, slant, stroke_weight, thirds


def stroke(tangent: float, width: float, side: int = 28) -> Tensor:
    """A straight stroke of a slant and a width in pixels, edges a pixel soft, ``[1, side, side]``."""
    rows = torch.arange(side, dtype=torch.float32)
    middle = (side - 1) / 2
    across = rows[None, :] - (middle - tangent * (rows[:, None] - middle))
    ink = (width / 2 + 0.5 - across.abs() / (1 + tangent**2) ** 0.5).clamp(0, 1)
    ink[(rows < 5) | (rows > side - 6)] = 0
    return ink[None]


@pytest.mark.parametrize("tangent", [-0.4, 0.0, 0.15, 0.5])
@pytest.mark.parametrize("width", [2.0, 3.0, 5.0])
def test_slant_and_weight_are_those_that_were_drawn(tangent: float, width: float) -> None:
    image = stroke(tangent, width)[None]
    assert float(slant(image)) == pytest.approx(tangent, abs=0.03)
    # its ends are edge too: 2 A / P of a bar of length 18
    length = 18 * (1 + tangent**2) ** 0.5
    assert float(stroke_weight(image)) == pytest.approx(2 * width * length / (2 * length + 2 * width), rel=0.16)


def test_classes_are_digit_slant_and_weight_and_the_middle_is_unknown(tmp_path: Path) -> None:
    kinds = [(digit, tangent, width) for digit in (3, 7) for tangent in (-0.3, 0.1, 0.5) for width in (2.0, 3.0, 5.0)]
    images = np.stack([(255 * stroke(t, w)[0]).round().byte().numpy() for _, t, w in kinds])
    labels = np.array([digit for digit, _, _ in kinds], dtype=np.uint8)
    arrays = {
        f"{split}_{name}": a for split in ("train", "test") for name, a in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    bank = make_dataset("mnist-styles", root=str(tmp_path)).load("train")
    pictures = torch.from_numpy(images)[:, None].float() / 255
    lean, bold = thirds(slant(pictures), SLANT_THIRDS), thirds(stroke_weight(pictures), WEIGHT_THIRDS)
    assert lean.tolist() == [s for _ in (3, 7) for s in (0, 1, 2) for _ in range(3)]
    assert len(bank) == 18
    assert bank.num_classes == len({(d, int(s), int(w)) for (d, _, _), s, w in zip(kinds, lean, bold, strict=True)})
    assert bank.class_names[0].startswith("3 left")
    assert bank.attributes["digit"].names == tuple("0123456789")
    of_image = bank.attributes["slant"].values[bank.labels]
    assert of_image.unique().tolist() == [-1, 0, 1]
    shown = slant(torch.as_tensor(bank.images).float() / 255)
    assert (shown[of_image == 1] > SLANT_THIRDS[1]).all()
    assert (shown[of_image == 0] <= SLANT_THIRDS[0]).all()
    part = make_dataset("mnist-styles", root=str(tmp_path), held_out=5)
    assert [len(part.load(split)) for split in ("train", "validation", "test")] == [13, 5, 18]
