"""The script for a GPU's minutes, as far as a processor can show that it will not fail there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

REPOSITORY = Path(__file__).parent.parent
sys.path.append(str(REPOSITORY / "tools"))

import gpu_minutes  # noqa: E402
from gpu import agreement, trainings  # noqa: E402
from gpu.cases import Problem  # noqa: E402
from gpu.setup import Report, Setup, rows_of  # noqa: E402

from metagvae.cli.parser import configured  # noqa: E402


def test_a_part_leaves_its_rows(tmp_path: Path) -> None:
    """In a process of its own, without any data."""
    command = [sys.executable, str(REPOSITORY / "tools" / "gpu_minutes.py"), "--reduced", "--device", "cpu"]
    done = subprocess.run([*command, "--out", str(tmp_path), "--only", "names"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    part = results["parts"]["names"]
    assert part["state"] == "done"
    assert [row["row"] for row in part["rows"]] == [
        f"{what} on {name}" for name in ("auto", "cpu") for what in ("train and evaluate", "pretrain")
    ]
    assert not any("error" in row for row in part["rows"])


@pytest.mark.slow
def test_all_of_it_at_reduced_size(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "tools" / "gpu_minutes.py"), "--reduced", "--device", "cpu"]
    subprocess.run([*command, "--out", str(tmp_path)], check=True)
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert {name: part["state"] for name, part in parts.items()} == dict.fromkeys(gpu_minutes.PARTS, "done")
    errors = [row for part in parts.values() for row in part["rows"] if "error" in row]
    assert errors == []


def test_an_exception_is_a_row_and_a_row_cut_short_is_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    report = Report(path)

    def wrong() -> dict[str, object]:
        raise RuntimeError("two devices")

    report.attempt("step", wrong)
    with path.open("a") as file:
        file.write('{"row": "half')
    (row,) = rows_of(path)
    assert row["error"] == "RuntimeError: two devices"
    assert "test_gpu_minutes.py" in row["where"]


def test_a_part_past_its_limit_is_killed_and_keeps_its_rows(tmp_path: Path) -> None:
    part = gpu_minutes.Part("names", limit=-2.5, folder=tmp_path)
    Report(part.path).row("before")
    part.log = (tmp_path / "log.txt").open("wb")
    part.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    part.began = time.time() - 1
    assert part.look()
    assert part.process.returncode == -9
    assert part.state == "stopped at its limit"
    assert [row["row"] for row in part.rows] == ["before"]


def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_minutes.main(["--out", str(tmp_path), "--device", "cpu"]) == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("chain", trainings.chains(), ids=lambda chain: chain.name)
def test_every_training_is_a_command_that_can_be_given(chain: trainings.Chain, tmp_path: Path) -> None:
    """Its config parses with the settings that the script adds, and each step finds what the one before left."""
    setup = Setup("data", str(tmp_path), "cpu", reduced=True)
    made: set[str] = set()
    for command in chain.commands:
        words = chain.arguments(command, setup)
        if words[0] == "evaluate":
            assert words[words.index("--run") + 1] in made
            continue
        config = configured(words)
        assert config.run.device == "cpu"
        assert config.optim.steps == 4
        assert config.data.root == str(Path("data") / chain.needs)
        if config.encoder.source is not None:
            assert config.encoder.source in made
        made.add(config.run.folder)


def test_what_an_earlier_call_finished_is_not_trained_again(tmp_path: Path) -> None:
    plan = tmp_path / "own.yaml"
    plan.write_text("one:\n  commands: ['train --config none.yaml --run.folder {runs}/a', 'evaluate --nothing']\n")
    (chain,) = trainings.chains(plan)
    setup = Setup(str(tmp_path), str(tmp_path / "work"), "cpu", trainings=str(plan))
    assert not trainings.finished(chain.arguments(chain.commands[0], setup))
    encoder = setup.folder / "runs" / "a" / "encoder"
    encoder.mkdir(parents=True)
    (encoder / "config.json").touch()
    report = Report(tmp_path / "rows.jsonl")
    trainings.Work(setup, report).chain(chain)
    (row,) = rows_of(report.path)
    assert len(row["seconds"]) == 2  # the second command ran, and was refused
    assert row["state"].startswith("stopped")


def test_archives_hold_finished_runs_and_states_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tarfile

    for run, finished in (("a", True), ("b", False)):
        folder = tmp_path / "runs" / run
        (folder / "state").mkdir(parents=True)
        for number in (1, 2):
            (folder / "state" / f"step-000000{number}.pt").write_bytes(bytes(100))
        (folder / "metrics.jsonl").write_text("{}\n")
        if finished:
            (folder / "encoder").mkdir()
            (folder / "encoder" / "model.safetensors").write_bytes(bytes(3000))
    monkeypatch.setattr(trainings, "ARCHIVE", 3500)
    names = trainings.pack(tmp_path, tmp_path)
    found = []
    for name in names:
        with tarfile.open(tmp_path / name) as archive:
            found.append(archive.getnames())
    assert found == [
        ["runs/a/encoder/model.safetensors"],
        ["runs/a/metrics.jsonl", "runs/b/metrics.jsonl", "runs/b/state/step-0000002.pt"],
    ]


def test_the_same_draws_on_any_device_and_in_any_precision() -> None:
    """Ground of the comparison with the CPU; and a wrong gradient is seen."""
    module = nn.Linear(3, 1)

    def terms(model: nn.Module, put) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]
        noise = torch.randn(4, 3, dtype=model.weight.dtype, device=model.weight.device)
        like = torch.rand_like(noise)
        return {"loss": model(noise + like).sum()}

    device = agreement.Device(torch.device("cpu"), False)
    one = agreement.slopes(Problem(module, terms), device, torch.float32)
    true = agreement.slopes(Problem(module, terms), device, torch.float64)
    gaps = agreement.apart(one, true)
    assert gaps["gradient"] < 1e-6
    assert gaps["cosine"] == pytest.approx(1.0)
    wrong = (one[0], one[1] * torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
    assert agreement.apart(wrong, true)["gradient"] > 0.1
