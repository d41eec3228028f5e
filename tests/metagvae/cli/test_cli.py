"""The command line as a person meets it: help, a whole small job, and one clear sentence for each mistake."""

from __future__ import annotations

import json
import os
import sys
import types
import zipfile
from pathlib import Path

import pytest

import metagvae
import metagvae.__main__
from tests.support.commands import CONFIGS, FAST, call, pictures
from tests.support.fresh import python


def test_stopped_while_torch_is_imported_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(types.ModuleType):
        def __getattr__(self, name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "metagvae.cli", Slow("metagvae.cli"))
    assert metagvae.__main__.main() == 130
    assert capsys.readouterr().err == "metagvae: stopped\n"


def test_a_folder_of_twelve_classes_of_six_trains_and_evaluates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = pictures(tmp_path / "pictures"), tmp_path / "run"
    config = str(CONFIGS / "folder" / "protonet.yaml")
    status, _, err = call(
        capsys, "train", "--config", config, "--data.root", str(root), "--run.folder", str(run), *FAST
    )
    assert (status, err) == (0, "")
    assert (run / "figures" / "curves.png").stat().st_size > 1000
    assert (run / "figures" / "episode.png").stat().st_size > 1000
    status, out, err = call(
        capsys, "evaluate", "--run", str(run), "--encoder", "pixels", "--way", "2", "3", "--shot", "1", "--query", "2",
        "--episodes", "20", "--json", str(tmp_path / "r.json"), "--figure", str(tmp_path / "e.png"),
    )  # fmt: skip
    assert status == 0, err
    assert "2-way 1-shot" in out
    assert "paired difference" in out
    assert len(json.loads((tmp_path / "r.json").read_text())["results"]) == 4
    assert (tmp_path / "e.png").stat().st_size > 1000
    # another draw of the splits puts classes trained on into the test split
    other = ["--data_options", "{split_seed: 5}"]
    status, _, err = call(capsys, "evaluate", "--run", str(run), *other, "--way", "2", "--query", "2")
    assert status == 2
    assert "were trained on by" in err
    status, out, err = call(capsys, "export-encoder", str(run), str(tmp_path / "enc"))
    assert status == 0, err
    assert (tmp_path / "enc" / "model.safetensors").is_file()
    assert "Trained on:** folder-pictures" in (tmp_path / "enc" / "README.md").read_text()


@pytest.mark.parametrize("change", [["--episodes.way", "20"], ["--episodes.shot", "6"]])
def test_too_few_classes_or_pictures_is_one_sentence_before_any_work(
    change: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work is counted, not timed: no image is opened, no network built, no folder made."""
    root = pictures(tmp_path / "pictures")
    for work in (
        "episodes.datasets.folder.open_picture",
        "metagvae.training.episodic.build_parts",
        "metagvae.training.episodic.fit",
    ):
        monkeypatch.setattr(work, lambda *_, _work=work, **__: pytest.fail(f"{_work} was called"))
    config = str(CONFIGS / "folder" / "protonet.yaml")
    run = tmp_path / "run"
    status, _, err = call(
        capsys, "train", "--config", config, "--data.root", str(root), "--run.folder", str(run), *change
    )
    assert status == 2
    assert err.count("\n") == 1
    assert "way" in err
    assert not run.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--nonsense", "1"], "nonsense"),
        (["train", "--episodes.way", "many"], "episodes.way"),
        (["train", "--optim.schedule", "warm"], "'cosine', 'halving' or 'constant'"),
        (["train", "--data.name", "imagenet"], "known: "),
        (["train", "--data.options", "{colour: 1}"], "allowed: "),
        (["train", "--run.device", "cuda:77"], "'cpu' always can"),
        (["train", "--mode", "thaw"], "'finetune', 'frozen' or 'guided'"),
        (["evaluate", "--data", "digits"], "--run FOLDER or --encoder NAME"),
        (["evaluate", "--data", "digits", "--encoder", "pixels", "--way", "20"], "20-way"),
        (["evaluate", "--data", "digits", "--encoder", "pixels", "--figure", "x.txt"], "must end in .png"),
        (["disentangle", "--data", "digits", "--encoder", "pixels", "--figure", "x.txt"], "must end in .png"),
        (["disentangle", "--pictures", "sprites", "--encoder", "pixels", "--figure", "x.png"], "sprites have none"),
        (["train", "--augment.rotation", "-10"], "augment.rotation must be"),
        (["train", "--augment.flip", "2"], "augment.flip must be"),
        (["evaluate", "--data", "digits", "--encoder", "nothing"], "no encoder 'nothing'"),
        (["evaluate", "--data", "digits", "--run", "nowhere"], "no run folder"),
        (["evaluate", "--data", "folder", "--encoder", "pixels", "--root", "/nonexistent"], "/nonexistent"),
        (["evaluate", "--data", "digits", "--encoder", "pixels", "--json", "/proc/none/x.json"], "cannot write"),
        (["pretrain", "--encoder.source", "x"], "leave out encoder.source"),
        (["pretrain", "--vae.guidance", "[{name: pca}]"], "deformable_pca"),
        (["pretrain", "--data.name", "digits"], "test"),
        (["data", "fetch", "digits"], "nothing to fetch"),
        (["import-encoder", "w.pt", "c.yaml"], "--out"),
    ],
)
def test_mistakes_get_one_clear_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metagvae.training.pretraining.fit", lambda *a, **k: pytest.fail("training began"))
    monkeypatch.setattr("metagvae.training.episodic.fit", lambda *a, **k: pytest.fail("training began"))
    if arguments[0] in ("train", "pretrain") and not any("data" in a for a in arguments):
        root = pictures(tmp_path / "pictures", 6, 5)
        arguments = [
            *arguments,
            "--data.name",
            "folder",
            "--data.root",
            str(root),
            "--data.options",
            "{fractions: [0.4, 0.3, 0.3]}",
        ]
    status, out, err = call(capsys, *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err + out
    assert not (tmp_path / "runs").exists()


def test_an_unknown_key_in_a_config_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("episodes: {way: 5, shots: 1}\n")
    status, _, err = call(capsys, "train", "--config", str(config))
    assert status == 2
    assert "shots" in err


@pytest.mark.parametrize("kind", ["empty folder", "truncated zip", "traversing zip", "not a folder of classes"])
def test_unusable_folders(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    if kind == "empty folder":
        root.mkdir()
    elif kind == "not a folder of classes":
        root.mkdir()
        (root / "readme.txt").write_text("no pictures")
    else:
        root = tmp_path / "data.zip"
        with zipfile.ZipFile(root, "w") as archive:
            archive.writestr("../evil/a.png" if kind == "traversing zip" else "a/b.png", b"x" * 5000)
        if kind == "truncated zip":
            root.write_bytes(root.read_bytes()[:3000])
    status, _, err = call(capsys, "evaluate", "--data", "folder", "--root", str(root), "--encoder", "pixels")
    assert status == 2
    assert str(root) in err
    assert not (tmp_path / "evil").exists()


def test_a_corrupt_picture_is_named_and_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(tmp_path / "pictures", 6, 5)
    (root / "kind00" / "1.png").write_bytes(b"\x89PNG broken")
    status, out, err = call(capsys, "data", "check", str(root), "--size", "32")
    assert status == 0, err
    assert "kind00/1.png" in out


def test_data_check_passes_over_no_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(tmp_path / "pictures", 2, 2)
    for name, says in ((str(root), "--root goes with the name of a data set"), ("glyphs", "'glyphs' reads no files")):
        status, _, err = call(capsys, "data", "check", name, "--root", "/nonexistent")
        assert (status, says in err, err.count("\n")) == (2, True, 1), err


def test_data_are_fetched_into_a_home(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    fetched: list[Path] = []
    monkeypatch.setattr("episodes.datasets.omniglot.Omniglot.fetch", lambda _, folder: fetched.append(folder))
    status, _, err = call(capsys, "data", "fetch", "omniglot", "--folder=~/x")
    assert status == 0, err
    assert fetched == [tmp_path / "home" / "x"]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_what_is_read_from_a_home(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pictures(tmp_path / "pictures", 4, 2)
    assert call(capsys, "data", "check", "~/pictures")[0] == 0
    (tmp_path / "c.yaml").write_text("data: {name: no-such-data}\n")
    search = "{optim.lr: {float: [1.0e-4, 1.0e-2]}}"
    for command in (["train", "--config", "~/c.yaml"], ["sweep", "--base", "~/c.yaml", "--search", search]):
        _, _, err = call(capsys, *command)
        assert "no-such-data" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    root = pictures(tmp_path / "pictures", 12, 6)
    config = str(CONFIGS / "folder" / "protonet.yaml")
    status, _, err = call(
        capsys, "train", "--config", config, "--data.root", str(root), "--run.folder", str(locked / "run")
    )
    assert status == 2
    assert "may write" in err


def test_an_output_that_cannot_be_made_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root too: a file stands where the run's folder should be, or the file system takes no folders."""
    (tmp_path / "file").write_text("")
    root = pictures(tmp_path / "pictures", 12, 6)
    config = str(CONFIGS / "folder" / "protonet.yaml")
    for folder in (tmp_path / "file" / "run", Path("/proc/metagvae")):
        monkeypatch.setattr("metagvae.training.episodic.fit", lambda *_, **__: pytest.fail("training began"))
        status, _, err = call(
            capsys, "train", "--config", config, "--data.root", str(root), "--run.folder", str(folder)
        )
        assert status == 2
        assert str(folder) in err


@pytest.mark.parametrize("command", [[], ["pretrain"], ["train"], ["evaluate"], ["import-encoder"], ["export-encoder"],
                                     ["data"], ["data", "list"], ["data", "fetch"], ["data", "check"]])  # fmt: skip
def test_help_explains(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, *command, "--help")
    assert status == 0
    assert len(out) > 120


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version") == (0, f"metagvae {metagvae.__version__}\n", "")


def test_every_setting_has_an_explanation(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("pretrain", "train", "evaluate"):
        _, out, _ = call(capsys, command, "--help")
        for block in out.split("\n  --")[1:]:
            name = block.split()[0].rstrip(",")
            # jsonargparse's own switches explain themselves
            if "configuration file" not in block and name != "config" and not name.endswith(".help"):
                assert len(" ".join(block.split())) > len(name) + 40, block


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_config_parses(config: Path) -> None:
    from metagvae.cli import build_parser

    kind = "train" if "learner:" in config.read_text() else "pretrain"
    kind = "sweep" if config.stem == "sweep" else kind
    build_parser(kind).parse_args([kind, "--config", str(config)])


def test_data_list_names_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "data", "list")
    assert status == 0
    assert all(name in out for name in ("omniglot", "miniimagenet", "folder", "glyphs", "digits"))


def test_the_scripts_are_the_commands() -> None:
    scripts = CONFIGS.parent / "scripts"
    for name in ("pretrain", "train_episodic", "evaluate_fewshot"):
        done = python(str(scripts / f"{name}.py"), "--help", cwd=scripts)
        assert done.returncode == 0, done.stderr
        assert "usage" in done.stdout


def test_training_on_pictures_alone_ends_with_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run = pictures(tmp_path / "pictures"), tmp_path / "run"
    shape = ["--episodes.way", "4", "--episodes.query", "2", "--validation.way", "2", "--validation.query", "1"]
    status, _, err = call(
        capsys, "train", "--data.name", "folder", "--data.root", str(root), "--run.folder", str(run), *FAST, *shape,
        "--episodes.classes", "pictures", "--augment.rotation", "20",
    )  # fmt: skip
    assert status == 0, err
    assert (run / "figures" / "episode.png").is_file()
