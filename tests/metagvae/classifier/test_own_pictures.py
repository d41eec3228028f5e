"""A person's own folder: checked, cross-validated by class, predicted into a table."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metagvae
from episodes import ImageBank, InputError
from metagvae.classifier import folders
from metagvae.classifier.folders import read_examples
from metagvae.config.episodes import ValidationSection
from metagvae.config.optimisation import RunSection
from metagvae.config.sections import DataConfig, TrainConfig
from metagvae.encoders.controls import Pixels
from metagvae.learners import Learner, make_learner
from metagvae.runs.class_families import plain_names
from metagvae.studies import cross_validation as crossvalidation
from metagvae.studies.cross_validation import FoldErrors, fold_classes, half_width
from metagvae.zoo.card import EncoderCard
from tests.support.commands import CONFIGS, call, pictures


def test_predict_writes_a_line_for_every_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples, others = pictures(tmp_path / "examples", 3, 4), pictures(tmp_path / "others", 3, 5)
    (others / "kind00" / "bad.png").write_text("no picture")
    (others / "=cmd.png").write_bytes((others / "kind01" / "1.png").read_bytes())
    (examples / "kind00" / "bad.jpg").write_bytes(b"\xff\xd8")
    out = tmp_path / "tables" / "p.csv"
    status, said, err = call(capsys, "predict", str(examples), str(others), "--out", str(out), "--invert", "false")
    assert status == 0, err
    assert "17 pictures, 1 of them unreadable, 3 classes of 12 examples" in said
    assert "left out: kind00/bad.jpg" in said
    assert "by the others" in said
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["file"] == "'=cmd.png"
    assert len(rows) == 17
    for row in rows:
        if row["problem"]:
            assert row["file"] == "kind00/bad.png"
            assert row["prediction"] == ""
        else:
            assert row["prediction"] in ("kind00", "kind01", "kind02")
            assert row["second"] != row["prediction"]
            assert 1 >= float(row["probability"]) >= float(row["second_probability"]) >= 0
            assert float(row["novelty"]) >= 0


def predictions(out: Path) -> dict[str, str]:
    with out.open(newline="") as file:
        return {row["file"]: row["prediction"] for row in csv.DictReader(file)}


def test_predict_finds_the_class_folders_that_data_check_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrapped twice, and with pictures under any ending: the answers are those of the plain folder."""
    plain, others = pictures(tmp_path / "plain", 3, 4), pictures(tmp_path / "others", 3, 2)
    shutil.copytree(plain, tmp_path / "wrap" / "inner" / "deeper")
    for number, ending in enumerate((".jfif", "", ".jpg_medium")):
        first = min((others / f"kind{number:02d}").iterdir())
        first.rename(first.with_name(f"zero{ending}"))
    (others / "movie.mp4").write_text("x")
    (others / "photo.heic").write_text("x")
    found = []
    for examples in (plain, tmp_path / "wrap"):
        status, said, err = call(capsys, "predict", str(examples), str(others), "--out", str(tmp_path / "p.csv"))
        assert status == 0, err
        assert "6 pictures, 0 of them unreadable, 3 classes of 12 examples" in said
        assert "left aside (2), files that are no PNG" in said
        assert "by ending .mp4 1, .heic 1: movie.mp4, photo.heic" in said
        assert ("the class folders are those in inner/deeper/" in said) == (examples != plain)
        found.append(predictions(tmp_path / "p.csv"))
    assert found[0] == found[1]
    assert set(found[0].values()) <= {"kind00", "kind01", "kind02"}
    status, said, err = call(capsys, "data", "check", str(tmp_path / "wrap"))
    assert status == 0, err
    assert "kind00" not in said
    assert "only one class" not in said


def test_one_class_only_is_said_by_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "one", 1, 4)
    for command in (["predict", str(tmp_path / "one"), str(tmp_path / "one"), "--out", str(tmp_path / "p.csv")],
                    ["data", "check", str(tmp_path / "one")]):  # fmt: skip
        status, said, err = call(capsys, *command)
        assert status == 0, err
        assert "there is only one class, kind00" in said


def test_one_picture_is_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples, others = pictures(tmp_path / "examples", 3, 4), pictures(tmp_path / "others", 3, 1)
    out = tmp_path / "p.csv"
    assert call(capsys, "predict", str(examples), str(others), "--out", str(out))[0] == 0
    whole = predictions(out)
    for name, answer in whole.items():
        status, said, err = call(capsys, "predict", str(examples), str(others / name), "--out", str(out))
        assert status == 0, err
        assert said.strip().splitlines()[-1].startswith("1 pictures, 0 of them unreadable")
        assert predictions(out) == {Path(name).name: answer}
    status, _, err = call(capsys, "predict", str(others / min(whole)), str(others), "--out", str(out))
    assert status == 2
    assert "has one picture but no class folders" in err


@pytest.mark.parametrize("kind", ["no folder", "no classes", "no pictures", "only broken"])
def test_folders_that_cannot_be_used(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples, others = pictures(tmp_path / "examples", 2, 2), pictures(tmp_path / "others", 1, 1)
    if kind == "no folder":
        examples = tmp_path / "nothing"
    elif kind == "no classes":
        examples = others / "kind00"
    elif kind == "no pictures":
        others = tmp_path / "empty"
        others.mkdir()
    else:
        for file in (examples / "kind00").iterdir():
            file.write_text("x")
    status, _, err = call(capsys, "predict", str(examples), str(others), "--out", str(tmp_path / "p.csv"))
    assert status == 2
    assert err.startswith("metagvae: ")
    assert not (tmp_path / "p.csv").exists()


def test_every_fold_of_classes_is_held_out_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(tmp_path / "pictures", 9, 4)
    arguments = ["cross-validate", "--config", str(CONFIGS / "folder" / "protonet.yaml"), "--data.root", str(root),
                 "--run.folder", str(tmp_path / "run"), "--folds", "3", "--test_episodes", "10", "--optim.steps", "2",
                 "--encoder.width", "8", "--data.size", "32", "--validation.every", "2",
                 "--validation.episodes", "5"]  # fmt: skip
    status, out, err = call(capsys, *arguments)
    assert status == 0, err
    assert "pixels" in out
    assert "trained on the other folds" in out
    assert sum(out.count(f"kind{number:02d}") for number in range(9)) == 9
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["fold0", "fold1", "fold2"]
    for change, message in (
        (["--folds", "2"], "between 3 and the 9 classes"),
        (["--methods", "[]", "--training", "false"], "nothing to measure"),
        (["--validation.within.attribute", "alphabet", "--training", "false"], "'alphabet'"),
        (["--folds", "9", "--training", "false"], "3-way"),
        (["--methods", "[pca]"], "fitted on training pictures"),
        (["--data.name", "digits", "--data.options", "{}"], "folders of pictures"),
    ):
        status, _, err = call(capsys, *arguments, *change)
        assert status == 2
        assert message in err


def test_a_class_of_too_few_pictures_is_left_out_of_the_folds_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = pictures(tmp_path / "pictures", 9, 4)
    (alone,) = [root / "lonely"]
    alone.mkdir()
    shutil.copy(next((root / "kind00").iterdir()), alone)
    asked = ["cross-validate", "--config", str(CONFIGS / "folder" / "protonet.yaml"), "--data.root", str(root),
             "--data.size", "32", "--folds", "3", "--test_episodes", "5", "--training", "false",
             "--run.folder", str(tmp_path / "run")]  # fmt: skip
    status, out, err = call(capsys, *asked)
    assert status == 0, err
    assert "left out, as they have too few images: lonely" in out
    assert sum(out.count(f"kind{number:02d}") for number in range(9)) == 9
    status, _, err = call(capsys, *asked, "--validation.query", "4")
    assert status == 2
    assert "the 0 classes that have 5 images or more" in err


def test_what_knows_the_classes_is_refused_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An encoder to start from, a teacher, or a method beside, trained on classes that would be held out."""
    root, known = pictures(tmp_path / "pictures", 9, 4), str(tmp_path / "known")
    few = ["--config", str(CONFIGS / "folder" / "protonet.yaml"), "--data.root", str(root), "--optim.steps", "2",
           "--encoder.width", "8", "--data.size", "32", "--validation.every", "0"]  # fmt: skip
    options = ["--data.options", '{"fractions": [0.8, 0.1, 0.1]}', "--episodes.way", "3"]
    assert call(capsys, "train", *few, *options, "--run.folder", known)[0] == 0
    asked = ["cross-validate", *few, "--run.folder", str(tmp_path / "run"), "--folds", "3", "--test_episodes", "5"]
    start = [word for word in asked if word not in ("--encoder.width", "8")]
    for arguments in ([*start, "--encoder.source", known], [*asked, "--methods", f"[{known}]"],
                      [*asked, "--teacher.sources", f"[{known}]"]):  # fmt: skip
        status, _, err = call(capsys, *arguments)
        assert status == 2
        assert f"trained on by {known}" in err
        assert not (tmp_path / "run").exists()


def test_a_class_and_its_turns_are_held_out_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "pictures", 9, 4)
    parts: list[tuple[ImageBank, ImageBank]] = []

    def remembered(config: TrainConfig, bank: ImageBank, validation: ImageBank) -> Learner:
        parts.append((bank, validation))
        return make_learner("prototypes", Pixels(), 3)

    monkeypatch.setattr(crossvalidation, "train", remembered)
    config = TrainConfig(
        data=DataConfig("folder", str(root), 32, "classes"),
        validation=ValidationSection(way=3, shot=1, query=2),
        run=RunSection(folder=str(tmp_path / "run")),
    )
    found = crossvalidation.cross_validate(config, 3, 5, methods=())
    for held_out, (bank, validation) in zip(found.classes, parts, strict=True):
        upright = [plain_names(names) for names in (held_out, bank.class_names, validation.class_names)]
        assert sum(map(len, upright)) == len(set.union(*upright)) == 9
        assert bank.num_classes == 4 * len(upright[1]) == 12


def test_folds_and_their_interval() -> None:
    names = [f"c{number}" for number in range(11)]
    dealt = fold_classes(names, 4, 0)
    assert sorted(name for fold in dealt for name in fold) == sorted(names)
    assert {len(fold) for fold in dealt} == {2, 3}
    assert dealt == fold_classes(names[::-1], 4, 0) != fold_classes(names, 4, 1)
    assert half_width([0.1, 0.2, 0.3]) == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
    assert half_width([0.1, 0.4]) is None
    assert "2 folds: too few for an interval" in str(FoldErrors([["a"], ["b"]], {"pixels": [0.1, 0.4]}))
    three = str(FoldErrors([["a"], ["b"], ["c"]], {"pixels": [0.1, 0.2, 0.9]}))
    assert "40.00 [0.00, 100.00]" in three


def test_data_check_names_classes_of_one_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(tmp_path / "pictures", 6, 3)
    for file in list((root / "kind02").iterdir())[1:]:
        file.unlink()
    status, out, _ = call(capsys, "data", "check", str(root), "--size", "32")
    assert status == 0
    assert any("too small" in line and "kind02" in line for line in out.splitlines())


@pytest.mark.parametrize(("classes", "count"), [(4, 8), (20, 5)])
def test_the_walk_through_runs_as_written(
    classes: int, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 1 to 5 of docs/own-pictures.md on folders of several sizes, offline."""
    page = (CONFIGS.parent / "docs" / "own-pictures.md").read_text().partition("## 6.")[0]
    commands = re.findall(r"^metagvae (.*)$", page, re.MULTILINE)
    assert len(commands) == 5
    pictures(tmp_path / "PICTURES", classes, count)
    others = pictures(tmp_path / "NEW", 5, 2)
    monkeypatch.chdir(tmp_path)
    for command in commands:
        status, _, err = call(capsys, *shlex.split(command))
        assert status == 0, (command, err)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == sorted(str(f.relative_to(others)) for f in others.rglob("*.*"))
    assert all(row["prediction"] and not row["problem"] for row in rows)


def test_examples_at_full_size_are_not_kept(tmp_path: Path) -> None:
    """Twelve photographs of 12 megapixels, 36 MB each: about one is held at a time, in both folders."""
    for number in range(6):
        folder = tmp_path / "photos" / f"kind{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((200, 150), 90).convert("RGB").resize((4000, 3000)).save(folder / f"{number}.jpg")
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from metagvae import FewShotClassifier
from metagvae.classifier.folders import fit_folder, predict_folder
classifier = FewShotClassifier(device="cpu", invert=False).fit([np.eye(9), 1 - np.eye(9)], [0, 1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
photos = Path(sys.argv[1])
assert fit_folder(classifier, photos).told == []
assert predict_folder(classifier, photos, photos.parent / "p.csv")[:2] == (6, 0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "photos")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150_000  # KB; all six would be 216 MB, twice


def test_an_in_sample_figure_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples, others = pictures(tmp_path / "examples", 4, 3), pictures(tmp_path / "others", 1, 1)
    encoder = metagvae.load_encoder("guided-vae-omniglot")
    card = EncoderCard(trained_classes={"folder-other": ["kind00", "kind02", "elsewhere"]})
    metagvae.save_encoder(encoder, tmp_path / "mine", card)
    arguments = ["predict", str(examples), str(others), "--out", str(tmp_path / "p.csv"), "--invert", "false"]
    status, said, err = call(capsys, *arguments, "--encoder", str(tmp_path / "mine"))
    assert status == 0, err
    assert "in-sample" in said
    assert "trained on 2 of these 4 classes, 'kind00' among them" in said
    assert "in-sample" not in call(capsys, *arguments)[1]


def test_each_picture_has_its_line_when_one_is_on_another_scale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Examples of 12 bits in files of 16; one new picture has 16, and is a problem of its own line only."""
    rng = np.random.default_rng(0)
    for folder, most in (("examples/a", 4095), ("examples/b", 4095), ("new/n", 4095)):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(3):
            values = rng.integers(0, most, (30, 30)).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / folder / f"{number}.png")
    Image.fromarray(np.full((30, 30), 65_000, np.uint16)).save(tmp_path / "new" / "n" / "9.png")
    arguments = [str(tmp_path / "examples"), str(tmp_path / "new"), "--out", str(tmp_path / "p.csv")]
    status, said, err = call(capsys, "predict", *arguments)
    assert status == 0, err
    assert "4 pictures, 1 of them unreadable" in said
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["problem"]) for row in rows] == [False, False, False, True]
    assert "value_range" in rows[3]["problem"]


def test_a_class_without_a_readable_picture_ends_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "p", classes=3, per_class=2)
    for path in (root / "kind01").iterdir():
        path.write_text("no picture")
    read: list[str] = []
    whole = folders.open_picture
    monkeypatch.setattr(folders, "open_picture", lambda data, name: read.append(name) or whole(data, name))
    with pytest.raises(InputError, match=r"no picture of the class 'kind01' in .* can be read: kind01/0\.jpg is not a"):
        read_examples(root, 1, 28)
    assert [name.split("/")[0] for name in read] == ["kind00", "kind00", "kind01", "kind01"]
