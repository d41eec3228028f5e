"""A folder's own check: planted wrong labels and copies are found, and the curve is that of known classes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm

from episodes import InputError
from episodes.datasets import make_dataset
from metagvae.classifier.calibration import Calibration
from metagvae.studies.fit_check import copies, fit_check, suspects
from metagvae.studies.learning_curve import learning_curve
from metagvae.studies.next_to_label import next_to_label
from tests.support.commands import call

SPREAD = 1.0


def two_gaussians(count: int, seed: int, gap: float = 2.0, size: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Two isotropic classes ``gap`` standard deviations apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(2).repeat_interleave(count)
    features = SPREAD * torch.randn(2 * count, size, generator=generator)
    features[:, 0] += gap * labels
    return features, labels


def expected_error(shot: int, gap: float = 2.0, size: int = 20) -> float:
    """Of the nearest mean of K images each, by drawing: the error that the curve estimates."""
    generator = np.random.default_rng(0)
    means = generator.normal(size=(20_000, 2, size)) / shot**0.5
    means[:, 1, 0] += gap
    # given both means the query's projection on their difference is normal
    way, middle = means[:, 1] - means[:, 0], means.mean(1)
    return float(norm.cdf(-(way * middle).sum(1) / np.linalg.norm(way, axis=1)).mean())


def test_the_expected_error_is_a_normal_tail_for_many_images() -> None:
    assert expected_error(10_000) == pytest.approx(norm.cdf(-1.0), abs=2e-3)


def test_the_curve_and_its_forecast_are_right_on_average() -> None:
    """Averaged over folders, the points are the true errors, and the forecast is that of twice the images."""
    prior = Calibration(2 * SPREAD**2, 20 * SPREAD**2)
    curves = [learning_curve(*two_gaussians(8, seed), prior, 10, seed) for seed in range(150)]
    for shot in (1, 3, 7):
        mean = np.mean([curve.points[shot] for curve in curves])
        assert mean == pytest.approx(expected_error(shot), abs=0.02), shot
    assert np.mean([curve.now.error for curve in curves]) == pytest.approx(expected_error(7), abs=0.02)
    assert curves[0].now.shot == 7
    assert curves[0].doubled.shot == 16
    assert np.mean([curve.doubled.error for curve in curves]) == pytest.approx(expected_error(16), abs=0.02)
    inside = [curve.doubled.low <= expected_error(16) <= curve.doubled.high for curve in curves]
    assert np.mean(inside) >= 0.9


def test_a_class_of_one_image_has_no_error() -> None:
    features, labels = two_gaussians(3, 0)
    with pytest.raises(InputError, match=r"smallest of 1 image\(s\)"):
        learning_curve(features[:4], labels[:4], Calibration(1.0, 1.0))


def digit_folder(root: Path, each: int = 8) -> Path:
    bank = make_dataset("digits").load("test")
    for digit in range(4):
        (root / f"digit{digit}").mkdir(parents=True)
        start = int(bank.offsets[digit])
        for number in range(each):
            pixels = bank.images[start + 5 * number, 0].numpy()
            Image.fromarray(pixels).resize((56, 56)).save(root / f"digit{digit}" / f"{number}.png")
    return root


def test_planted_faults_are_found_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = digit_folder(tmp_path / "digits")
    clean = fit_check(root, "handwriting")
    assert clean.suspects == []
    assert clean.copies == []
    shutil.move(root / "digit0" / "7.png", root / "digit1" / "moved.png")
    Image.open(root / "digit2" / "3.png").resize((90, 90)).convert("RGB").save(
        root / "digit2" / "again.jpg", quality=70
    )
    page = tmp_path / "page.html"
    status, out, err = call(capsys, "fit-check", str(root), "--encoder", "handwriting", "--out", str(page))
    assert status == 0, err
    assert re.search(r"is its label right\? digit1/moved\.png: \d+\.\d % digit0", out)
    assert "the same image: digit2/3.png and digit2/again.jpg" in out
    assert "digit1 taken for digit0: 1" in out
    text = page.read_text(encoding="utf-8")
    assert "moved.png" in text
    assert "again.jpg" in text
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "<script" not in text


def test_names_in_the_page_are_text(tmp_path: Path) -> None:
    from metagvae.report.fit_check import write_fit_check

    root = digit_folder(tmp_path / "digits", 3)
    (root / "digit0").rename(root / "<b>digit")
    text = write_fit_check(fit_check(root, "handwriting"), root, tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<b>digit" not in text


@pytest.mark.parametrize("kind", ["one image", "one class", "nothing"])
def test_folders_without_an_error_say_why(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = digit_folder(tmp_path / "digits", 1 if kind == "one image" else 2)
    for digit in range(1, 4):
        if kind == "one class":
            shutil.rmtree(root / f"digit{digit}")
    if kind == "nothing":
        root = tmp_path / "none"
    page = tmp_path / "page.html"
    status, _, err = call(capsys, "fit-check", str(root), "--encoder", "handwriting", "--out", str(page))
    assert status == 2
    assert err.startswith("metagvae: ")
    assert not page.exists()


def test_suspects_and_copies_by_hand() -> None:
    logits = torch.tensor([[5.0, 0.0], [0.0, 5.0], [0.0, 1.0]])
    assert [(one.row, one.taken) for one in suspects(logits, torch.tensor([1, 1, 0]))] == [(0, 0)]
    images = torch.rand(5, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    images[3] = 0.5 * images[1] + 0.2  # darker and flatter
    assert copies(images) == [(1, 3)]


def test_the_next_label_is_where_most_images_are() -> None:
    """Three heaps, one of them known: the two others come first, the larger before the smaller, strays last."""
    generator = torch.Generator().manual_seed(0)
    heaps = [
        torch.tensor(centre) + 0.3 * torch.randn(count, 2, generator=generator)
        for centre, count in (([0.0, 0.0], 20), ([10.0, 0.0], 30), ([0.0, 10.0], 10), ([30.0, 30.0], 1))
    ]
    rows = next_to_label(torch.cat(heaps), torch.zeros(1, 2), 3)
    assert 20 <= rows[0] < 50
    assert set(rows[1:]) <= {60, *range(50, 60)}
    assert next_to_label(torch.zeros(2, 2), torch.zeros(1, 2), 5) == [0, 1]
    with pytest.raises(InputError, match="0 without"):
        next_to_label(torch.zeros(0, 2), torch.zeros(1, 2))


def test_next_to_label_names_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = digit_folder(tmp_path / "digits")
    (tmp_path / "more").mkdir()
    for number in range(4):
        shutil.move(root / "digit3" / f"{number}.png", tmp_path / "more" / f"{number}.png")
    words = ["next-to-label", str(root), str(tmp_path / "more"), "--count", "2", "--encoder", "handwriting"]
    status, out, err = call(capsys, *words)
    assert status == 0, err
    lines = out.strip().splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(r"\d\.png   now taken for digit\d, probability \d+ %", line) for line in lines)
