"""A run's folder may be a stranger's: nothing is written through a link in it, and no two runs share it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from episodes import InputError
from metagvae.cli import main
from metagvae.runs.signals import Interrupted
from metagvae.storage.folder_lock import FolderLock
from tests.metagvae.cli.test_cli import CONFIGS
from tests.metagvae.training.test_training import do_train, train_config


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("links") / "run"
    with pytest.raises(Interrupted):
        do_train(train_config(folder, 4, run_stop_after=2))
    return folder


NAMES = ["lock", "state", "events", "encoder", "figures", "metrics.jsonl", "config.yaml", "data.json", "best.json",
         "learner.safetensors", "provenance.json", "events/x", "state/step-0000001.pt", "notes"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_a_link_out_of_the_folder_is_refused_and_its_target_untouched(
    name: str, kind: str, stopped: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "precious"
    if kind == "file":
        outside.write_text("precious")
    elif kind == "folder":
        outside.mkdir()
        (outside / "step-0000009.pt").write_text("precious")
    link, aside = stopped / name, tmp_path / "aside"
    there = os.path.lexists(link)
    if there:
        link.rename(aside)
    link.symlink_to(outside)
    before = listing(tmp_path)
    try:
        with pytest.raises(InputError, match=f"{link} is a link out of"):
            do_train(train_config(stopped, 4, run_resume="auto"))
    finally:
        link.unlink()
        if there:
            aside.rename(link)
    before.pop("aside", None)
    assert {k: v for k, v in before.items() if not k.startswith("aside")} == listing(tmp_path)


def test_a_folder_reached_by_a_link_and_links_that_stay_inside_are_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "run")
    with pytest.raises(Interrupted):
        do_train(train_config(tmp_path / "run", 4, run_stop_after=2))
    (tmp_path / "run" / "newest").symlink_to("state")
    do_train(train_config(tmp_path / "run", 4, run_resume=True))
    assert (tmp_path / "disk" / "run" / "best.json").is_file()


def test_a_lock_that_is_a_link_a_pipe_or_another_name_of_a_file_is_not_written(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for make in (lambda p: p.symlink_to(precious), os.mkfifo, Path.mkdir):
        folder = tmp_path / "folder"
        folder.mkdir()
        make(folder / "lock")
        with pytest.raises(InputError, match="lock"):
            FolderLock(folder)
        (folder / "lock").rmdir() if (folder / "lock").is_dir() else (folder / "lock").unlink()
        folder.rmdir()
    (tmp_path / "folder").mkdir()
    os.link(precious, tmp_path / "folder" / "lock")
    FolderLock(tmp_path / "folder").release()
    assert precious.read_text() == "precious"


def test_a_folder_stays_locked_when_its_lock_file_is_deleted(tmp_path: Path) -> None:
    held = FolderLock(tmp_path)
    (tmp_path / "lock").unlink()
    with pytest.raises(InputError, match="is in use by"):
        FolderLock(tmp_path)
    held.release()
    FolderLock(tmp_path).release()


def test_what_made_a_run_may_be_a_pipe(tmp_path: Path) -> None:
    from metagvae.runs.run import begun_precision

    os.mkfifo(tmp_path / "provenance.json")
    assert begun_precision(tmp_path, "auto", "auto") == "auto"


def test_other_commands_write_through_no_link_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "run").mkdir()
    commands = {
        "fold0": ["cross-validate", "--data.name", "digits", "--run.folder", str(tmp_path / "run")],
        "encoder": ["calibrate", str(tmp_path / "run"), "digits"],
        "trials.db": ["sweep", "--folder", str(tmp_path / "run"), "--base", str(CONFIGS / "glyphs" / "protonet.yaml"),
                      "--search", "{optim.lr: {float: [1.0e-4, 1.0e-2]}}"],
    }  # fmt: skip
    for name, command in commands.items():
        (tmp_path / "run" / "sweep.yaml").write_text("{}")
        (tmp_path / "run" / name).symlink_to(tmp_path / "precious")
        assert main(command) == 2
        assert "is a link out of" in capsys.readouterr().err
        (tmp_path / "run" / name).unlink()
    assert not list((tmp_path / "precious").iterdir())
