"""Folders of images brought to what an encoder takes, and what `evaluate` says while it works."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from episodes import InputError
from episodes.datasets import make_dataset
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.evaluation import embedding
from metagvae.studies.own_images import as_encoders_take
from metagvae.zoo.load import save_encoder
from tests.support.commands import call


def folder(place: Path, paper: bool, classes: int = 4, each: int = 6) -> Path:
    """Classes of strokes at an angle of their own, RGB, 48 x 40; on white paper or on black."""
    generator = np.random.default_rng(0)
    for number in range(classes):
        (place / "test" / f"c{number}").mkdir(parents=True)
        for picture in range(each):
            image = np.zeros((40, 48, 3), dtype=np.uint8)
            image[5 + number * 7 : 9 + number * 7, 8:40] = 200 + generator.integers(0, 55)
            image = 255 - image if paper else image
            Image.fromarray(image).save(place / "test" / f"c{number}" / f"{picture}.png")
    return place


@pytest.fixture
def ink_encoder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    config = EncoderConfig(width=4, size=28, channels=1, norm="group", polarity="ink", features=["backbone"])
    save_encoder(Encoder(config).eval(), tmp_path / "encoder")
    return str(tmp_path / "encoder")


@pytest.mark.parametrize("paper", [True, False])
def test_a_folder_is_read_as_the_encoder_takes_it(
    tmp_path: Path, ink_encoder: str, paper: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "pictures", paper)
    found = as_encoders_take(make_dataset("folder", root=str(root)), ["pixels", ink_encoder], "test", None, {})
    bank = found.load("test")
    assert (bank.image_shape, bank.polarity) == ((1, 28, 28), "ink")
    assert bank.images.float().mean() < 80, "strokes are bright, the ground is black"
    said = capsys.readouterr().err
    assert "grey at 28 x 28" in said
    assert ("inverted to bright strokes" in said) == paper


def test_what_was_set_by_hand_stays(tmp_path: Path, ink_encoder: str) -> None:
    root = str(folder(tmp_path / "pictures", True))
    plain = make_dataset("folder", root=root, size=32, channels=3, invert=False)
    assert as_encoders_take(plain, [ink_encoder], "test", 32, {"channels": 3, "invert": False}) == plain
    assert as_encoders_take(plain, ["pixels"], "test", None, {}) == plain
    assert as_encoders_take(plain, ["photos"], "test", None, {}) == replace(plain, size=224)  # what it sees itself
    digits = make_dataset("digits")
    assert as_encoders_take(digits, [ink_encoder], "test", None, {}) is digits
    with pytest.raises(InputError, match=r"data\.options: invert .* ink says"):
        make_dataset("folder", root=root, invert=True, ink=True)


def test_evaluate_converts_names_fit_data_and_shows_how_far_it_is(
    tmp_path: Path, ink_encoder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_PATIENCE", 0.0)
    root = str(folder(tmp_path / "pictures", True))
    shape = ["--way", "3", "--shot", "1", "--query", "2", "--episodes", "20", "--device", "cpu"]
    status, out, err = call(capsys, "evaluate", "--data", "folder", "--root", root, "--encoder", ink_encoder, *shape)
    assert status == 0, err
    assert "encoder" in out
    assert "grey at 28 x 28, inverted" in err
    assert "3-way 1-shot episodes" in err
    assert "images:" in err
    for control in ("pca", "random"):
        status, _, err = call(capsys, "evaluate", "--data", "folder", "--root", root, "--encoder", control, *shape)
        assert status != 0
        assert f"the control '{control}' is fitted on training images" in err
        assert "--fit_data" in err
    status, _, err = call(
        capsys,
        *("evaluate", "--data", "folder", "--root", root, "--size", "32", "--encoder", ink_encoder, *shape),
    )
    assert status != 0
    assert '--size 28 --data_options \'{"channels": 1' in err
