"""A run is measured on pictures it did not see, known by their pixels, and on its own data from any folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from episodes import ImageBank
from episodes.datasets import make_dataset
from episodes.picture_marks import class_marks, classes_with
from metagvae.runs.run import without_places
from metagvae.zoo import shipped_encoders
from metagvae.zoo.trained import read_card
from tests.support.commands import CONFIGS, FAST, call, pictures

QUICK = ["--way", "2", "--shot", "1", "--query", "2", "--episodes", "10"]

HOME = "/" + "home/me"  # spelt so that no file of the package names a folder of one machine


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures in ``plain`` and a run on them that was told so by a relative path."""
    home = tmp_path_factory.mktemp("home")
    pictures(home / "plain")
    monkey = pytest.MonkeyPatch()
    monkey.chdir(home)
    from metagvae.cli import main

    config = str(CONFIGS / "folder" / "protonet.yaml")
    assert main(["train", "--config", config, "--data.root", "plain", "--run.folder", "runs/mine", *FAST]) == 0
    monkey.undo()
    return home


def evaluate(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    return call(capsys, "evaluate", *words, *QUICK)


def renamed(home: Path, other: Path) -> Path:
    """A copy of ``plain`` whose folder, classes and pictures have other names."""
    for number, folder in enumerate(sorted((home / "plain").iterdir(), reverse=True)):
        for index, file in enumerate(sorted(folder.iterdir(), reverse=True)):
            place = other / f"x{number}" / f"{index}{file.suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    return other


def test_a_copy_under_another_name_is_known_by_its_pixels(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run, seed = str(home / "runs" / "mine"), ["--data_options", "{split_seed: 3}"]
    shutil.copytree(home / "plain", tmp_path / "copy")
    renamed(home, tmp_path / "other")
    for root in ("copy", "other"):
        for words in (["--run", run], ["--encoder", run, "--data", "folder", "--size", "32"]):
            status, out, err = evaluate(capsys, *words, "--root", root, *seed)
            assert (status, out) == (2, "")
            assert "were trained on by" in err
    # its own test classes, in a copy of them
    status, out, err = evaluate(capsys, "--run", run, "--root", "copy")
    assert status == 0, err


def test_a_run_finds_its_pictures_from_any_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another ``plain`` lies where the command is given; it is not measured."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").mkdir()
    assert yaml.safe_load((home / "runs" / "mine" / "config.yaml").read_text())["data"]["root"] == str(home / "plain")
    status, there, err = evaluate(capsys, "--run", str(home / "runs" / "mine"))
    assert status == 0, err
    monkeypatch.chdir(home)
    status, here, err = evaluate(capsys, "--run", "runs/mine")
    assert status == 0, err
    assert here == there


def test_a_run_of_an_older_version_is_checked_by_its_fingerprint(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "mine"
    shutil.copytree(home / "runs" / "mine", run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["root"] = "plain"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(home)
    assert evaluate(capsys, "--run", str(run))[0] == 0
    monkeypatch.chdir(tmp_path)
    status, _, err = evaluate(capsys, "--run", str(run))
    assert status == 2
    assert "which are not there now; say where they are: --root FOLDER" in err
    pictures(tmp_path / "plain", 12, 7)
    status, _, err = evaluate(capsys, "--run", str(run))
    assert status == 2
    assert "the pictures in" in err
    assert "are others" in err
    assert evaluate(capsys, "--run", str(run), "--root", str(home / "plain"))[0] == 0


def test_a_run_goes_on_where_its_pictures_lie_now(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / "plain", tmp_path / "plain")
    words = ["train", "--config", str(CONFIGS / "folder" / "protonet.yaml"), "--run.folder", "r", *FAST]
    assert call(capsys, *words, "--data.root", "plain", "--run.stop_after", "2")[0] == 75
    (tmp_path / "disk").mkdir()
    (tmp_path / "plain").rename(tmp_path / "disk" / "plain")
    assert call(capsys, *words, "--data.root", "disk/plain", "--run.resume", "true")[0] == 0


def stripes(names: list[str], seeds: list[int], count: int = 6) -> ImageBank:
    def images(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)

    return ImageBank.from_classes([(name, images(seed)) for name, seed in zip(names, seeds, strict=True)])


def test_marks() -> None:
    bank = stripes(["a", "b", "c"], [0, 1, 2], 20)
    marks = class_marks(bank)
    assert len(marks) == 24
    assert marks == class_marks(bank.with_rotations())
    assert classes_with(stripes(["x", "y", "z"], [2, 7, 0], 20), set(marks)) == ["x", "z"]
    assert classes_with(bank.with_rotations(), set(marks)) == ["a/rot000", "b/rot000", "c/rot000"]
    assert not classes_with(stripes(["x"], [9]), set(marks))
    # an image that two classes share is no class
    other = stripes(["x"], [9], 20)
    other.images[0] = bank.images[0]
    assert not classes_with(other, set(class_marks(bank)))
    assert set(marks) < set(class_marks(stripes(["d"], [5]), marks))


def test_of_very_many_classes_some_are_still_known() -> None:
    """Two marks of each class that is kept: one alone would tell none, and nothing would be refused."""
    classes, each = 8500, 3
    images = torch.arange(classes * each).view(-1, 1, 1, 1).expand(-1, 1, 1, 4)
    pixels = torch.stack([images[..., 0] % 256, images[..., 1] // 256 % 256, images[..., 2] * 0], -1).to(torch.uint8)
    names = tuple(f"c{number:05d}" for number in range(classes))
    bank = ImageBank(pixels, torch.arange(0, classes * each + 1, each), names)
    marks = class_marks(bank)
    assert len(marks) == 2**14
    assert len(classes_with(bank, set(marks))) == 2**13
    further = ImageBank(255 - pixels[:600], torch.arange(0, 601, each), names[:200])
    assert set(marks) < set(class_marks(further, marks))  # what was known before is not crowded out


def test_a_card_names_no_place_of_its_maker(home: Path) -> None:
    card = read_card(home / "runs" / "mine")
    assert len(card.trained_images) == 36  # 6 training classes of 6
    assert str(home) not in json.dumps(card.details)
    assert str(CONFIGS) not in json.dumps(card.details)
    lines = {
        f"metagvae train --config {HOME}/c.yaml --run.folder runs/a": "train --config c.yaml --run.folder runs/a",
        "metagvae train --data.root=/data/ab/p --x ~me/y/z": "train --data.root=p",
        "metagvae train --data.root '../secret place/p'": "train --data.root p",
        "metagvae train --data.options '{splits_csv: HOME/s.csv}'".replace("HOME", HOME): "'{splits_csv: s.csv}'",
        "metagvae evaluate --encoder hub:OWNER/NAME timm:x": "evaluate --encoder hub:OWNER/NAME timm:x",
    }
    for command, kept in lines.items():
        found = without_places({"command": command})["command"]
        assert kept in found
        assert "me/" not in found
        assert "secret" not in found


# photos never saw a character
@pytest.mark.parametrize("encoder", [name for name in shipped_encoders() if name != "photos"])
def test_shipped_encoders_know_their_training_characters(
    encoder: str, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some of Omniglot's training characters, in a folder of another name."""
    bank = make_dataset("omniglot", root=str(real_data / "omniglot")).load("train")
    for number in range(24):
        for index in range(6):
            image = bank.images[bank.offsets[number] + index, 0]
            place = tmp_path / "mine" / f"c{number}" / f"{index}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.numpy()).save(place)
    options = ["--data_options", "{channels: 1}"]
    words = ["--encoder", encoder, "--data", "folder", "--root", str(tmp_path / "mine"), "--size", "28", *options]
    status, out, err = evaluate(capsys, *words)
    assert (status, out) == (2, "")
    assert "were trained on by" in err
