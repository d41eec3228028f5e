"""Classifiers on frozen features, and the data set they are for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from episodes import ImageBank, InputError
from metagvae.cli import main
from metagvae.evaluation.linear_probe import probe


class Means(nn.Module):
    """Mean brightness of the left and the right half."""

    def forward(self, images: Tensor) -> Tensor:
        half = images.shape[-1] // 2
        return torch.stack((images[..., :half].mean((1, 2, 3)), images[..., half:].mean((1, 2, 3))), -1)


def halves(split: str, per_class: int = 60) -> ImageBank:
    """Exclusive or: class 0 has both halves dark or both bright. A straight line cannot tell it."""
    generator = torch.Generator().manual_seed(len(split))
    parts = []
    for number in range(2):
        left = torch.rand(per_class, generator=generator) < 0.5
        right = left ^ bool(number)
        images = torch.zeros(per_class, 1, 8, 8)
        images[..., :4] = torch.where(left, 200.0, 50.0)[:, None, None, None]
        images[..., 4:] = torch.where(right, 200.0, 50.0)[:, None, None, None]
        images += 20 * torch.randn(images.shape, generator=generator)
        parts.append((f"c{number}", images.clamp(0, 255).to(torch.uint8)))
    return ImageBank.from_classes(parts, split=split)


def test_a_kernel_tells_what_a_line_cannot() -> None:
    splits = [halves(split) for split in ("train", "test")]
    linear, kernel = probe("means", Means(), *splits)
    assert linear.error > 0.3
    assert kernel.error < 0.02
    # Wilson's score interval, by hand
    z, n, p = 1.959964, 120, kernel.error
    assert kernel.half_width == pytest.approx(z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5)
    assert (kernel.size, kernel.pictures) == (2, (120, 120))
    with pytest.raises(InputError, match="linear, kernel"):
        probe("means", Means(), *splits, classifiers=["tree"])


def test_splits_of_other_classes_are_refused() -> None:
    other = ImageBank.from_classes([("x", torch.zeros(4, 1, 8, 8, dtype=torch.uint8))], split="test")
    with pytest.raises(InputError, match="metagvae evaluate"):
        probe("means", Means(), halves("train"), other)


def write(path: Path, **changes: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 240), ("test", 40)):
        labels = np.arange(count) % 10
        noise = rng.integers(0, 60, (count, 28, 28))
        noise[np.arange(count), labels] += 150
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = noise.astype(np.uint8), labels.astype(np.uint8)
    np.savez(path, **{**arrays, **changes})


def test_the_command_writes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "mnist.npz")
    out = tmp_path / "probe.json"
    status = main(
        ["probe", "--root", str(tmp_path), "--encoder", "pixels", "--classifier", "linear", "--json", str(out)]
    )
    assert status == 0
    assert "error 0.00" in capsys.readouterr().out
    assert json.loads(out.read_text())["rows"][0]["classifier"] == "linear"


def test_all_encoders_are_opened_before_the_first_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mnist.npz")
    monkeypatch.setattr("metagvae.evaluation.linear_probe.probe", lambda *_: pytest.fail("pixels were measured"))
    assert main(["probe", "--root", str(tmp_path), "--encoder", "pixels", "nosuch"]) == 2
    out = capsys.readouterr()
    assert "'nosuch'" in out.err
    assert not out.out
