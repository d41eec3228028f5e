"""Runs that are killed, stopped, or short of disk: each goes on, and ends bit-identical to one that was left alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from episodes import InputError
from metagvae.compute.device import Device
from metagvae.config.optimisation import OptimSection
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.signals import STOPPED, Interrupted
from metagvae.runs.states import States
from metagvae.storage.atomic_files import is_remnant
from metagvae.storage.folder_lock import FolderLock
from metagvae.training.loop import learning_rate
from metagvae.training.pretraining import pretrain
from tests.support.faults import Launch, begin, dying_at, end, launched, with_files_up_to
from tests.support.trainings import assert_same_run, bank, do_train, pretrain_config, train_config


def training(folder: Path, steps: int = 4, **run: object) -> None:
    do_train(train_config(folder, steps, **{"run_resume": "auto", **run}))


def pretraining(folder: Path) -> None:
    pretrain(pretrain_config(folder, 4, resume="auto"), bank())


def remnants(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if is_remnant(path)]


def kill_at(operations: range, work: Callable[[Path], None], weights: str, tmp_path: Path) -> int:
    """Kills a run before each of these file operations, goes on, and compares; how many of them there were."""
    work(tmp_path / "whole")
    for number in operations:
        folder = tmp_path / f"killed-{number}"
        launch = launched(dying_at(number, folder, lambda folder=folder: work(folder)), tmp_path)  # type: ignore[misc]
        if launch.status == 0:
            return number - operations.start
        assert launch == Launch(-signal.SIGKILL, "")
        assert launched(lambda folder=folder: work(folder), tmp_path) == Launch(0, "")  # type: ignore[misc]
        assert_same_run(tmp_path / "whole", folder, weights)
        assert not remnants(folder)
    return len(operations)


@pytest.mark.parametrize("first", [1, 4])
def test_killed_around_a_file_operation(first: int, tmp_path: Path) -> None:
    assert kill_at(range(first, 60, 6), training, "learner.safetensors", tmp_path) > 20


@pytest.mark.slow
@pytest.mark.parametrize(("work", "weights"), [(training, "learner.safetensors"), (pretraining, "vae.safetensors")])
def test_killed_before_each_file_operation(work: Callable[[Path], None], weights: str, tmp_path: Path) -> None:
    assert kill_at(range(1, 200), work, weights, tmp_path) > 25


@pytest.mark.parametrize("left", ["nothing", "lock", "provenance.json", ".config.yaml-abcd.part", "state"])
def test_a_folder_whose_run_was_killed_before_it_began_is_begun(left: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    if left == "state":
        (folder / left).mkdir()
    elif left != "nothing":
        (folder / left).write_text("")
    training(folder, run_resume=True)
    assert (folder / "learner.safetensors").is_file()
    assert not remnants(folder)


def test_auto_starts_goes_on_and_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    training(tmp_path / "run")
    training(tmp_path / "run")
    with pytest.raises(InputError, match="another config: optim"):
        training(tmp_path / "run", steps=5)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds no run"):
        training(tmp_path / "other")
    assert os.listdir(tmp_path / "other") == ["thesis.tex"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_step_writes_and_says_how_to_go_on(number: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    training(tmp_path / "whole", steps=12)

    def work() -> None:
        import metagvae.training.loop

        def signalled(optim: OptimSection, step: int) -> float:
            if step == 6:
                for _ in range(2 if number == signal.SIGHUP else 1):  # a shell and the system send one each
                    os.kill(os.getpid(), number)
            return learning_rate(optim, step)

        metagvae.training.loop.learning_rate = signalled
        training(folder, steps=12)

    launch = launched(work, tmp_path)
    assert launch.status == STOPPED
    assert "stopping after this step" in launch.said
    assert f"stopped after step 7 of 12; the state is in {folder / 'state' / 'step-0000007.pt'}" in launch.said
    assert "--run.resume auto" in launch.said
    training(folder, steps=12)
    assert_same_run(tmp_path / "whole", folder, "learner.safetensors")


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def work() -> None:
        import metagvae.training.loop

        def slow(*_: object) -> None:
            (tmp_path / "in a step").touch()
            time.sleep(60)
            (tmp_path / "waited for").touch()

        metagvae.training.loop.learning_rate = slow  # type: ignore[assignment]
        training(folder)

    process = begin(work, tmp_path / "said")
    wait_for((tmp_path / "in a step").exists)
    os.kill(process, signal.SIGINT)
    wait_for(lambda: "once more stops at once" in (tmp_path / "said").read_text())
    os.kill(process, signal.SIGINT)
    assert "KeyboardInterrupt" in end(process, tmp_path / "said").said
    assert not (tmp_path / "waited for").exists()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited in vain")


def test_two_runs_cannot_share_a_folder_and_the_dead_hold_none(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def hold() -> None:
        lock = FolderLock(folder)
        (tmp_path / "held").touch()
        time.sleep(60)
        lock.release()

    training(folder, run_stop_after=4)
    process = begin(hold, tmp_path / "said")
    wait_for((tmp_path / "held").exists)
    with pytest.raises(InputError, match=f"in use by process {process} on"):
        training(folder)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    training(folder)


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("metagvae.storage.folder_lock.fcntl.flock", refuse)
    FolderLock(tmp_path).release()
    assert "cannot be locked (Operation not supported)" in capsys.readouterr().err


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.97])
def test_a_full_disk_ends_in_one_sentence_and_the_older_state_stays(part: float, tmp_path: Path) -> None:
    training(tmp_path / "whole", steps=20)
    folder = tmp_path / "run"
    assert launched(lambda: training(folder, steps=20, run_stop_after=6), tmp_path).status == STOPPED
    size = (folder / "state" / "step-0000006.pt").stat().st_size
    launch = launched(with_files_up_to(int(size * part), lambda: training(folder, steps=20)), tmp_path)
    assert launch.status == 2, launch.said
    assert launch.said.startswith("cannot write")
    assert "File too large" in launch.said
    assert launch.said.count("\n") == 1
    assert States(folder / "state").steps() == [6, 5]
    assert not remnants(folder)
    training(folder, steps=20)
    assert_same_run(tmp_path / "whole", folder, "learner.safetensors")


def test_metrics_that_do_not_fit_end_in_one_sentence_and_stay_whole(tmp_path: Path) -> None:
    training(tmp_path / "whole", steps=20)
    folder = tmp_path / "run"
    training_stops = launched(lambda: training(folder, steps=20, run_stop_after=6), tmp_path)
    assert training_stops.status == STOPPED
    size = (folder / "metrics.jsonl").stat().st_size + 50
    launch = launched(with_files_up_to(size, lambda: training(folder, steps=20)), tmp_path)
    assert launch.status == 2
    lines = launch.said.splitlines()
    assert "metrics.jsonl: no room" in lines[-1]
    assert all("TensorBoard's file ends" in line for line in lines[:-1])
    assert [line["step"] for line in read_metrics(folder)][-1] <= 8
    assert (folder / "metrics.jsonl").read_text().endswith("}\n")
    training(folder, steps=20)
    assert_same_run(tmp_path / "whole", folder, "learner.safetensors")


@pytest.mark.parametrize("name", ["data.json", "config.yaml"])
def test_a_damaged_file_of_a_run_is_named(name: str, tmp_path: Path) -> None:
    training(tmp_path / "run", run_stop_after=4)
    (tmp_path / "run" / name).write_bytes(b"\xff{\x00")
    with pytest.raises(InputError, match=name):
        training(tmp_path / "run")


def test_damaged_metrics_lose_the_damaged_lines_only(tmp_path: Path) -> None:
    training(tmp_path / "run", steps=12)
    path = tmp_path / "run" / "metrics.jsonl"
    whole = list(read_metrics(tmp_path / "run"))
    path.write_bytes(b'\xff\xfe\n[1]\n{"step": "x"}\n' + path.read_bytes() + b'{"step": 13, "lo')
    training(tmp_path / "run", steps=12)
    assert list(read_metrics(tmp_path / "run")) == whole


def test_a_run_keeps_the_precision_it_began_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ``auto`` is settled by timing, another launch may find another answer."""
    seen: list[bool] = []
    precision = Device.precision
    monkeypatch.setattr(Device, "precision", lambda self: (seen.append(self.autocast), precision(self))[1])
    for folder, answers in ((tmp_path / "whole", (False, False)), (tmp_path / "stopped", (False, True))):
        for answer, stop in zip(answers, (7, None), strict=True):
            monkeypatch.setattr("metagvae.compute.device._bfloat16_pays", lambda answer=answer: answer)
            launch = partial(training, folder, steps=12, run_stop_after=stop)
            with pytest.raises(Interrupted) if stop else nullcontext():
                launch()
    assert set(seen) == {False}
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", "learner.safetensors")
