"""Lake's one-shot task: pairs as the label files say, names by pixels, prescribed episodes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from episodes import InputError
from episodes.datasets import make_dataset
from episodes.datasets.omniglot import PARTS
from tests.support.omniglot_files import drawing

HANDS = {1: (0, 1), 3: (1, 2)}  # run: the numbers of the drawings it trains and tests on


def seed(character: int, number: int) -> int:
    return 1000 + 10 * character + number


def write_runs(path: Path, prefix: str, runs: list[int], damage: str = "") -> None:
    """Runs of 20 of 22 characters; run r leaves out the first r; test pictures in another order."""
    with zipfile.ZipFile(path, "w") as archive:
        for run in runs:
            name = f"{prefix}run{run:02d}"
            training, test = HANDS[run]
            lines = []
            for place in range(20):
                character = (run + place) % 22
                item = (7 * place) % 20
                archive.writestr(f"{name}/training/class{place + 1:02d}.png", drawing(seed(character, training)))
                shown = drawing(seed(character + (damage == "swap"), test))
                archive.writestr(f"{name}/test/item{item + 1:02d}.png", shown)
                lines.append(f"run{run:02d}/test/item{item + 1:02d}.png run{run:02d}/training/class{place + 1:02d}.png")
            text = "\n".join(sorted(lines)[: 19 if damage == "short" else 20]) + "\n"
            archive.writestr(f"{name}/class_labels.txt", text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / f"{PARTS[1]}.zip", "w") as archive:
        for character in range(22):
            for number in range(3):
                name = f"{PARTS[1]}/Atlantean/character{character + 1:02d}/{number:02d}.png"
                archive.writestr(name, drawing(seed(character, number)))
    return tmp_path


@pytest.mark.parametrize("prefix", ["", "all_runs/"])
def test_runs_from_several_zips_are_paired_and_named(root: Path, prefix: str) -> None:
    write_runs(root / "all_runs_01.zip", prefix, [1])
    write_runs(root / "all_runs_02.zip", prefix, [3])
    dataset = make_dataset("lake-oneshot", root=str(root))
    bank = dataset.load("test")
    assert (bank.num_classes, len(bank), bank.image_shape) == (40, 80, (1, 28, 28))
    assert bank.class_names[0] == "run01/Atlantean/character02"
    assert bank.attributes["run"].names == ("1", "3")
    assert "2 of Lake's 20 runs" in bank.notes[0]
    drawn = dataset.fixed_episodes(bank)
    assert drawn is not None
    assert (drawn.images.shape, drawn.shot) == ((2, 20, 2), 1)
    assert (bank.labels[drawn.images] == drawn.classes.unsqueeze(-1)).all()
    plain = make_dataset("omniglot", root=str(root), splits="lake")
    with zipfile.ZipFile(root / f"{PARTS[0]}.zip", "w") as archive:
        archive.writestr(f"{PARTS[0]}/B/character01/00.png", drawing(5))
    drawings = plain.load("test")  # 22 characters of 3 drawings
    for episode, (training, test) in enumerate(HANDS.values()):
        for way in range(20):
            character = drawings.class_names.index(bank.class_names[20 * episode + way].split("/", 1)[1])
            expected = drawings.images[3 * character + torch.tensor([training, test])]
            assert torch.equal(bank.images[drawn.images[episode, way]], expected)


def test_what_does_not_fit_is_refused(root: Path) -> None:
    dataset = make_dataset("lake-oneshot", root=str(root))
    with pytest.raises(InputError, match=r"no all_runs\.zip.* put python/one-shot-classification/all_runs\.zip of"):
        dataset.load("test")
    with pytest.raises(InputError, match="test-only"):
        dataset.load("train")
    with pytest.raises(InputError, match="without rotations"):
        make_dataset("lake-oneshot", rotations="classes")
    write_runs(root / "all_runs.zip", "", [1], damage="swap")
    with pytest.raises(InputError, match="not two drawings of one character"):
        dataset.load("test")
    write_runs(root / "all_runs.zip", "", [1], damage="short")
    with pytest.raises(InputError, match="it has 19 such lines"):
        dataset.load("test")


def test_real_runs(real_data: Path) -> None:
    bank = make_dataset("lake-oneshot", root=str(real_data / "omniglot")).load("test")
    assert bank.num_classes % 20 == 0
    assert bank.class_names[0] == "run01/Atlantean/character01"
