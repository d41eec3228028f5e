"""Metrics for wandb when a run asks for it: with a stand-in for the package, and once with the package offline."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from metagvae.runs.run import open_run
from tests.support.commands import CONFIGS, call, pictures
from tests.support.fresh import python


class StandIn(ModuleType):
    """The part of wandb that metagvae calls."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.launches: list[dict[str, Any]] = []
        self.broken = ""

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **arguments: Any) -> Any:
        if self.broken == "init":
            raise RuntimeError("no key\nand more")
        launch: dict[str, Any] = {**arguments, "lines": [], "finished": False, "axes": {}}
        self.launches.append(launch)
        outer = self

        class Handle:
            def define_metric(self, name: str, step_metric: str | None = None) -> None:
                launch["axes"][name] = step_metric

            def log(self, values: dict[str, float]) -> None:
                if outer.broken == "log":
                    raise OSError("gone")
                launch["lines"].append(values)

            def finish(self) -> None:
                launch["finished"] = True

        return Handle()


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    module = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def training(root: Path, run: Path, *more: str) -> list[str]:
    return ["train", "--config", str(CONFIGS / "folder" / "protonet.yaml"), "--data.root", str(root),
            "--data.size", "16", "--encoder.width", "4", "--optim.steps", "4", "--run.log_every", "1",
            "--validation.every", "2", "--validation.episodes", "5", "--run.folder", str(run),
            "--run.wandb", "shots", *more]  # fmt: skip


def test_a_resumed_run_continues_the_same_wandb_run(
    wandb: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = pictures(tmp_path / "pictures"), tmp_path / "run"
    status, _, err = call(capsys, *training(root, run, "--run.stop_after", "2"))
    assert status == 75, err
    status, _, err = call(capsys, *training(root, run, "--run.resume", "true"))
    assert status == 0, err
    first, second = wandb.launches
    assert first["id"] == second["id"]
    assert first["project"] == second["project"] == "shots"
    assert first["name"] == "run"
    assert first["resume"] == "allow"
    assert first["config"]["optim"]["steps"] == 4
    assert first["axes"] == {"step": None, "*": "step"}
    assert first["settings"]["disable_code"]
    assert first["settings"]["disable_git"]
    assert first["finished"]
    assert second["finished"]
    losses = [line["step"] for line in first["lines"] + second["lines"] if "loss" in line]
    assert losses == [1, 2, 3, 4]
    assert [line["step"] for line in second["lines"] if "validation_error" in line] == [4]
    # another project is another run there
    status, _, err = call(capsys, *training(root, run, "--run.resume", "true", "--run.wandb", "other"))
    assert status == 0, err
    assert wandb.launches[2]["id"] != first["id"]


def test_without_asking_it_is_never_started(wandb: StandIn, tmp_path: Path) -> None:
    wandb.broken = "init"
    with open_run(tmp_path / "run", "train", {"run": {"seed": 0}}, False) as run:
        run.start_metrics(0)
        run.log(1, {"loss": 1.0})
    assert not (tmp_path / "run" / "wandb.json").exists()


def test_what_fails_is_said(
    wandb: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pictures(tmp_path / "pictures")
    wandb.broken = "init"
    status, _, err = call(capsys, *training(root, tmp_path / "one"))
    assert status == 2
    assert "wandb does not start (RuntimeError: no key)" in err
    assert "WANDB_MODE=offline" in err
    wandb.broken = "log"
    status, _, err = call(capsys, *training(root, tmp_path / "two"))
    assert status == 0
    assert err.count("wandb's record ends at step 1 (gone)") == 1
    assert (tmp_path / "two" / "metrics.jsonl").read_text().count("loss") == 4
    monkeypatch.setitem(sys.modules, "wandb", None)
    status, _, err = call(capsys, *training(root, tmp_path / "three"))
    assert status == 2
    assert "pip install" in err
    assert not (tmp_path / "three").exists()


def test_the_package_itself_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = (
        "import sys; from metagvae.runs.run import open_run\n"
        "for resume in (False, True):\n"
        "    with open_run(sys.argv[1], 'train', {'run': {'wandb': 'shots', 'seed': 0}}, resume) as run:\n"
        "        run.start_metrics(int(resume)); run.log(1 + resume, {'loss': 1.0})"
    )
    folder = tmp_path / "run"
    done = python("-c", code, str(folder), cwd=tmp_path, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    records = list((folder / "wandb").glob("offline-run-*"))
    # offline-run-TIME-ID, and a number behind it where two launches begin within a second
    assert len({record.name.split("-")[3] for record in records}) == 1
    assert all(list(record.glob("*.wandb")) for record in records)
    assert records
