"""`metagvae link`, on drawings made here and on Omniglot's where they are."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from scipy.stats import ttest_1samp
from sklearn.datasets import load_digits

from episodes import ImageBank, InputError
from episodes.datasets import Dataset, make_dataset
from episodes.datasets.omniglot import MINIMAL
from episodes.datasets.omniglot_strokes import StrokePairs, stroke_pairs
from metagvae.cli import main
from metagvae.encoders.dictionary_learning import DictionaryLearner
from metagvae.encoders.sparse import SparseConfig
from metagvae.studies.linked import Linking, _score, _unseen, link_strokes
from metagvae.studies.linked_labels import link_labels

CHARACTERS, DRAWERS = 5, 20


def _line(rise: float, generator: torch.Generator) -> list[float]:
    """x and y of both ends of a line of a given rise, somewhere on the paper."""
    x, y = (10 + 80 * torch.rand(2, generator=generator)).tolist()
    way = math.atan2(rise, 40)
    return [x, y, min(max(x + 40 * math.cos(way), 5), 100), min(max(y + 40 * math.sin(way), 5), 100)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Omniglot's layout with 25 characters, two strokes each."""
    folder = tmp_path_factory.mktemp("omniglot")
    generator = torch.Generator().manual_seed(0)
    with (
        zipfile.ZipFile(folder / "images_background.zip", "w") as images,
        zipfile.ZipFile(folder / "images_evaluation.zip", "w") as evaluation,
        zipfile.ZipFile(folder / "strokes_background_small1.zip", "w") as strokes,
    ):
        blank = folder / "blank.png"
        Image.new("1", (105, 105), 1).save(blank)
        evaluation.write(blank, "images_evaluation/Atlantean/character01/0001_01.png")
        for row, alphabet in enumerate(sorted(MINIMAL)):
            for number in range(1, CHARACTERS + 1):
                for drawer in range(1, DRAWERS + 1):
                    lines = [_line(7.0 * (number + row) - 28, generator), _line(70.0 * number - 200, generator)]
                    picture = Image.new("1", (105, 105), 1)
                    text = "START\n"
                    for line in lines:
                        ImageDraw.Draw(picture).line(line, fill=0, width=3)
                        text += f"{line[0]},{-line[1]},0\n{line[2]},{-line[3]},40\nBREAK\n"
                    picture.save(folder / "one.png")
                    stem = f"{alphabet}/character{number:02d}/{10 * row + number:04d}_{drawer:02d}"
                    images.write(folder / "one.png", f"images_background/{stem}.png")
                    strokes.writestr(f"strokes_background_small1/{stem}.txt", text)
    return folder


def test_pairs_are_of_the_same_drawing(root: Path) -> None:
    pairs = stroke_pairs(str(root), bins=4)
    assert len(pairs) == 25 * DRAWERS
    assert pairs.maps.shape == (500, 4, 28, 28)
    ink = pairs.maps.sum(1)
    for number in (0, 77, 499):
        both = torch.corrcoef(torch.stack([pairs.images[number].flatten(), ink[number].flatten()]))
        assert both[0, 1] > 0.8
        other = torch.corrcoef(torch.stack([pairs.images[number].flatten(), ink[number - 250].flatten()]))
        assert other[0, 1] < 0.6


def test_missing_strokes_are_one_sentence(root: Path, tmp_path: Path) -> None:
    for name in ("images_background.zip", "images_evaluation.zip"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    with pytest.raises(InputError, match="strokes_background_small1"):
        stroke_pairs(str(tmp_path))
    with zipfile.ZipFile(tmp_path / "strokes_background_small1.zip", "w") as strokes:
        strokes.writestr("strokes_background_small1/Latin/character01/0001_01.txt", "START\n1,2,3\n")
    with pytest.raises(InputError, match="has no strokes of drawing 1 of Balinese/character01"):
        stroke_pairs(str(tmp_path))


def test_a_link_beats_its_controls_on_what_it_has_not_seen(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["link", "--root", str(root), "--atoms", "24", "--atoms_of_strokes", "32"]
    line += ["--stride", "3", "--bins", "4", "--json", str(tmp_path / "a.json")]
    assert main([*line, "--figure", str(tmp_path / "a.png")]) == 0
    assert "strokes from image, unseen characters (100 drawings)" in capsys.readouterr().out
    assert (tmp_path / "a.png").stat().st_size > 5000
    scores = json.loads((tmp_path / "a.json").read_text())["scores"]
    assert len(scores) == 4
    for score in scores:
        assert score["clear_of_zero"], scores
        assert score["own"] < score["link"] < min(100, score["nearest"])


def test_the_interval_of_a_gain_is_over_what_is_unseen() -> None:
    """Drawings of one character are alike: of six characters whose errors differ, the number of drawings is no help."""
    generator = torch.Generator().manual_seed(0)
    characters, drawers = (x.flatten() for x in torch.meshgrid(torch.arange(30), torch.arange(20), indexing="ij"))
    images = torch.rand(600, 1, 8, 8, generator=generator)
    names = tuple(f"{'ab'[number // 15]}/character{number % 15:02d}" for number in range(30))
    pairs = StrokePairs(images, images, characters, drawers, names)
    groups, train = _unseen(pairs)
    assert [(group.kind, len(group.units.unique())) for group in groups] == [("drawers", 10), ("characters", 6)]
    rows = groups[1].rows
    assert not set(rows.tolist()) & set(train.tolist())
    off = 0.3 * torch.rand(30, generator=generator)[characters[rows], None, None, None]
    made = (images[rows] + off * torch.where(images[rows] > 0.5, -1, 1)).clamp(0, 1)
    target: Any = SimpleNamespace(rebuilt=lambda truth: truth)
    score = _score("image from strokes", groups[1], made, target, images, images, train)
    scale = 100 / (images[train].mean(0) - images[rows]).square().flatten(1).sum(1).mean()
    errors = [(images[train].mean(0) - images[rows]).square(), (made - images[rows]).square()]
    gain = scale * (errors[0] - errors[1]).flatten(1).sum(1).view(6, 20).mean(1)
    low, high = ttest_1samp(gain.numpy(), 0).confidence_interval(0.95)
    assert score.gain == pytest.approx(float(gain.mean()), rel=1e-4)
    assert score.half_width == pytest.approx((high - low) / 2, rel=1e-4)


@dataclass(frozen=True)
class SplitDigits(Dataset):
    """scikit-learn's digits, 8 x 8, every third of them for the test."""

    name = "split-digits"
    default_size = 8

    def load_split(self, split: str) -> ImageBank:
        digits = load_digits()
        images = torch.from_numpy(digits.images * 15.9).to(torch.uint8)[:, None]
        part = torch.arange(len(images)) % 3 == 0
        rows = part if split == "test" else ~part
        labels = torch.from_numpy(digits.target)
        classes = [(str(number), images[rows & (labels == number)]) for number in range(10)]
        return ImageBank.from_classes(classes, dataset=self.name, split=split)


def test_labels_and_images_say_each_other(tmp_path: Path) -> None:
    config = SparseConfig(atoms=32, side=4, stride=1, pad=1, grid=3, penalty=0.2, steps=15)
    found = link_labels(SplitDigits(), config, count=1198)
    assert found.from_image["codes"] < found.from_image["pixels"] < 25
    assert found.read_out["codes"] < found.read_out["pixels"] < 10
    assert found.read_out["codes"] < found.from_image["codes"] + 1
    assert found.from_label == 10
    assert list(found.few) == [1, 5, 20, 100]
    assert list(link_labels(SplitDigits(), config, count=150).few) == [
        1,
        5,
    ]  # of 20, all draws would be alike
    assert found.few[1]["codes"][0] > found.few[20]["codes"][0] > found.from_image["codes"] - 2
    found.save(tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text())["from_label"] == 10
    assert "nearest to its own class for 10 of 10" in found.table()


def test_a_dictionary_is_learnt_from_codes_of_the_kind_that_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = list[bool]()

    class Noted(DictionaryLearner):
        def update(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
            kinds.append(self.positive)
            return super().update(rows) if len(kinds) < 3 else {}

    monkeypatch.setattr("metagvae.studies.linked_labels.DictionaryLearner", Noted)
    config = SparseConfig(atoms=16, side=4, stride=1, pad=1, grid=3, penalty=0.2, steps=5, positive=False)
    link_labels(SplitDigits(), config, count=150)
    assert set(kinds) == {False}
    with pytest.raises(InputError, match="those of whitened patches give none"):
        link_labels(SplitDigits(), replace(config, whiten=True), count=150)


def test_what_cannot_be_linked_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="--bins must be between 2 and 32"):
        Linking(bins=1)
    with pytest.raises(InputError, match="side must be at most"):
        Linking(side=90)
    with pytest.raises(InputError, match="cell must be between 1 and the 14 places"):
        Linking(cell=15)
    assert Linking(grid=5, cell=6, components=99).of_labels().length == 99
    with pytest.raises(InputError, match="same classes in training and test"):
        link_labels(make_dataset("glyphs"), SparseConfig(), 100)
    for pair, other, words in (
        ("strokes", "labels", ["--count", "500"]),
        ("strokes", "labels", ["--data", "mnist"]),
        ("strokes", "labels", ["--cell", "5"]),
        ("labels", "strokes", ["--atoms_of_strokes", "50"]),
        ("labels", "strokes", ["--bins", "4"]),
        ("labels", "strokes", ["--reach", "2"]),
    ):
        assert main(["link", "--pair", pair, *words]) == 2
        assert f"{words[0]} goes with --pair {other}; received --pair {pair}" in capsys.readouterr().err
    assert main(["link", "--pair", "sounds"]) == 2
    assert "must be 'strokes' or 'labels'; received 'sounds'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_link_on_omniglot() -> None:
    try:
        found = link_strokes(Linking(atoms=64, atoms_of_strokes=96, stride=3))
    except InputError as error:
        pytest.skip(str(error))
    assert all(score.clear_of_zero and score.link < 70 for score in found.scores)
