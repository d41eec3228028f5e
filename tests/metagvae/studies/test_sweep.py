"""Sweeps: what is searched, that test classes stay closed, going on after a kill, pruning, and the best config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from episodes import InputError, to_float
from episodes.datasets.base import Dataset
from metagvae import zoo
from metagvae.config.sections import DataConfig, PretrainConfig, TrainConfig
from metagvae.encoders.controls import Pixels
from metagvae.learners import make_learner
from metagvae.studies.selection import view_errors
from metagvae.studies.sweep.search_space import Range, parse_search, with_values
from tests.support.commands import CONFIGS, call, pictures
from tests.support.fresh import python

pytest.importorskip("optuna")

LR = {"float": [1e-4, 1e-2], "log": True}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("sweep") / "pictures")


@pytest.fixture
def plan(root: Path, tmp_path: Path) -> dict[str, Any]:
    """A sweep of seconds, as its YAML file has it."""
    fixed = {
        "data.root": str(root),
        "data.size": 16,
        "encoder.width": 4,
        "optim.steps": 6,
        "run.save_every": 2,
        "validation.every": 2,
        "validation.episodes": 5,
    }
    return {
        "base": str(CONFIGS / "folder" / "protonet.yaml"),
        "fixed": fixed,
        "search": {"optim.lr": LR, "encoder.features": {"choice": [["backbone"], ["latent"]]}},
        "folder": str(tmp_path / "sweep"),
        "episodes": 20,
        "trials": 2,
    }


def arguments(plan: dict[str, Any], path: Path, **changes: Any) -> list[str]:
    path.write_text(yaml.safe_dump({**plan, **changes}))
    return ["sweep", "--config", str(path)]


def results(plan: dict[str, Any]) -> dict[str, Any]:
    return json.loads((Path(plan["folder"]) / "trials.json").read_text())


def test_a_sweep_its_files_and_more_trials_later(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, load = [], Dataset.load
    monkeypatch.setattr(Dataset, "load", lambda self, split: opened.append(split) or load(self, split))
    path = tmp_path / "sweep.yaml"
    status, out, err = call(capsys, *arguments(plan, path))
    assert status == 0, err
    assert set(opened) == {"train", "validation"}
    folder = Path(plan["folder"])
    first = results(plan)["trials"]
    assert [t["state"] for t in first] == ["complete", "complete"]
    assert first[0]["values"] == {"optim.lr": 0.001, "encoder.features": ["backbone"]}  # the base's own
    for trial in first:
        assert 0 <= trial["error"] <= 1
        assert trial["half_width"] >= 0
        run = yaml.safe_load((folder / trial["folder"] / "config.yaml").read_text())
        assert run["optim"]["lr"] == trial["values"]["optim.lr"]
        assert run["encoder"]["features"] == trial["values"]["encoder.features"]
        assert run["run"]["seed"] == trial["seed"] == 0
        measured = json.loads((folder / trial["folder"] / "validation.json").read_text())
        assert len(measured["per_episode"]) == 20
    assert out.count("±") >= 4
    assert (folder / "trials.png").stat().st_size > 5000

    status, out, err = call(capsys, *arguments(plan, path, trials=4))
    assert status == 0, err
    trials = results(plan)["trials"]
    assert trials[:2] == first
    assert len(trials) == 4
    assert len({t["values"]["optim.lr"] for t in trials}) == 4  # a launch does not repeat the draws of the one before
    best = min(trials, key=lambda t: t["error"])
    assert results(plan)["best"] == best["number"]
    assert (results(plan)["gain"] is None) == (best["number"] == 0)
    status, _, err = call(capsys, "train", "--config", str(folder / "best.yaml"))
    assert status == 0, err
    again = json.loads((folder / "best" / "best.json").read_text())
    assert again == json.loads((folder / best["folder"] / "best.json").read_text())


def test_a_killed_trial_is_found_and_its_run_goes_on(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = tmp_path / "sweep.yaml", Path(plan["folder"])
    code = (
        "import os, sys; from metagvae.cli import main; from metagvae.runs.metrics_log import MetricsLog\n"
        "log = MetricsLog.log\n"
        "def dying(self, step, values):\n"
        "    log(self, step, values)\n"
        "    if step == 4 and 'trial-0001' in str(self._path): os._exit(9)\n"
        "MetricsLog.log = dying; main(sys.argv[1:])"
    )
    done = python("-c", code, *arguments(plan, path), cwd=tmp_path)
    assert done.returncode == 9, done.stderr
    assert len(results(plan)["trials"]) == 1
    state = {file.name for file in (folder / "trial-0001" / "state").iterdir()}
    assert state
    began = (folder / "trial-0001" / "provenance.json").read_text()
    status, _, err = call(capsys, *arguments(plan, path))
    assert status == 0, err
    trials = results(plan)["trials"]
    assert [t["state"] for t in trials] == ["complete", "killed", "complete"]
    assert trials[1]["folder"] == trials[2]["folder"] == "trial-0001"
    assert trials[1]["values"] == trials[2]["values"]
    assert not (folder / "trial-0002").exists()
    assert (folder / "trial-0001" / "provenance.json").read_text() == began
    steps = [json.loads(line)["step"] for line in (folder / "trial-0001" / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [2, 4, 6]
    status, _, err = call(capsys, *arguments(plan, path))
    assert status == 0, err
    assert len(results(plan)["trials"]) == 3  # nothing left to do


def test_a_stopped_sweep_goes_on(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from metagvae.runs.signals import Interrupted
    from metagvae.studies.sweep import trials as sweeping

    def stop(*args: Any, **kwargs: Any) -> None:
        raise Interrupted("asked to")

    monkeypatch.setattr(sweeping, "train", stop)
    path = tmp_path / "sweep.yaml"
    status, _, err = call(capsys, *arguments(plan, path, trials=1))
    assert status == 75
    assert "the same command goes on" in err
    monkeypatch.undo()
    status, _, err = call(capsys, *arguments(plan, path, trials=1))
    assert status == 0, err
    assert [t["state"] for t in results(plan)["trials"]] == ["killed", "complete"]


def test_trials_above_the_median_are_pruned(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from metagvae.studies.sweep import trials as sweeping

    seen = []

    def train(config: TrainConfig, watch: Any) -> Any:
        seen.append(config.run.folder)
        Path(config.run.folder).mkdir()
        worse = 0.1 * len(seen)
        for step in (2, 4):
            watch(step, min(1.0, 0.2 + worse))
        return None

    monkeypatch.setattr(sweeping, "train", train)
    monkeypatch.setattr(sweeping.Evaluator, "errors", lambda self, learner, shapes: [np.full(20, 0.5)])
    status, out, err = call(capsys, *arguments(plan, tmp_path / "s.yaml", trials=6, prune=True))
    assert status == 0, err
    assert [t["state"] for t in results(plan)["trials"]] == ["complete"] * 4 + ["pruned"] * 2
    assert results(plan)["trials"][5]["error"] is None
    assert "pruned" in out


def test_a_trial_that_cannot_work_is_marked_and_three_end_the_sweep(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = {"episodes.way": {"int": [50, 60]}}
    status, _, err = call(capsys, *arguments(plan, tmp_path / "s.yaml", search=search, trials=9))
    assert status == 2
    assert "3 trials in a row could not work" in err
    trials = results(plan)["trials"]
    assert [t["state"] for t in trials] == ["failed"] * 3
    assert "-way" in trials[0]["problem"]


def test_a_pretraining_is_searched_too(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = {"data.name": "folder", "data.root": plan["fixed"]["data.root"], "data.size": 16, "optim.steps": 2,
             "encoder.width": 4, "encoder.latent": 12}  # fmt: skip
    search = {"vae.guidance.0.weight": {"float": [1, 100], "log": True}, "vae.beta": {"choice": [0.1, 1.0]}}
    changes = {"base": str(CONFIGS / "glyphs" / "guided-vae.yaml"), "command": "pretrain", "fixed": fixed,
               "search": search, "way": 2, "query": 3}  # fmt: skip
    status, _, err = call(capsys, *arguments(plan, tmp_path / "s.yaml", **changes))
    assert status == 0, err
    best = yaml.safe_load((Path(plan["folder"]) / "best.yaml").read_text())
    assert 1 <= best["vae"]["guidance"][0]["weight"] <= 100
    assert best["vae"]["guidance"][0]["name"] == "deformable_pca"


def test_a_sweep_without_labels_is_judged_as_select_does(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = {"data.name": "folder", "data.root": plan["fixed"]["data.root"], "data.size": 16, "optim.steps": 2,
             "encoder.width": 4, "encoder.latent": 12}  # fmt: skip
    changes = {"base": str(CONFIGS / "glyphs" / "vae.yaml"), "command": "pretrain", "fixed": fixed,
               "search": {"vae.beta": {"choice": [0.1, 1.0]}}, "judge": "views", "seed": 3}  # fmt: skip
    status, out, err = call(capsys, *arguments(plan, tmp_path / "s.yaml", **changes))
    assert status == 0, err
    assert "error on warped single images on the validation split" in out
    trials = results(plan)["trials"]
    runs = [str(Path(plan["folder"]) / trial["folder"]) for trial in trials]
    bank = DataConfig("folder", root=fixed["data.root"], size=16).make().load("validation")
    shown = to_float(bank.gather(torch.randperm(len(bank), generator=torch.Generator().manual_seed(3))[:1024]))
    errors = [view_errors(zoo.open(run).encoder(), shown, 3, plan["episodes"]) for run in runs]
    assert [trial["error"] for trial in trials] == [pytest.approx(float(error.mean())) for error in errors]
    assert 0 < errors[0].mean() < 1


def without_training(monkeypatch: pytest.MonkeyPatch, errors: list[float]) -> list[str]:
    """Makes trials train nothing and have these mean errors, in their order; the list grows by each run's folder."""
    from metagvae.studies.sweep import trials as sweeping

    left, trained = iter(errors), []

    def train(config: TrainConfig, watch: Any) -> Any:
        trained.append(config.run.folder)
        Path(config.run.folder).mkdir()
        return make_learner("prototypes", Pixels(), 3)

    monkeypatch.setattr(sweeping, "train", train)
    monkeypatch.setattr(
        sweeping.Evaluator, "errors", lambda self, learner, shapes: [next(left) + np.linspace(-0.1, 0.1, 20)]
    )
    return trained


@pytest.mark.parametrize(
    ("search", "errors", "says"),
    [
        ({"optim.lr": {"float": [2e-3, 1e-2]}}, [0.2, 0.3], "No trial ran the base's own values"),
        ({"optim.average": {"choice": [0, 0.9]}}, [0.3, 0.2], "own values, on the same episodes: -10.00"),
        ({"optim.average": {"choice": [0, 0.9]}}, [0.2, 0.3], "None did better than the base's own values."),
        ({"optim.lr": LR}, [0.3, 0.2], "against the base's own values, on the same episodes: -10.00 ± 0.00 points"),
        ({"optim.lr": LR}, [np.nan, 0.2], "gave no error to compare with (trial 0: failed)"),
    ],
)
def test_the_best_is_compared_with_the_base_or_it_says_that_none_was_run(
    plan: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    search: dict[str, Any],
    errors: list[float],
    says: str,
) -> None:
    without_training(monkeypatch, errors)
    status, out, err = call(capsys, *arguments(plan, tmp_path / "s.yaml", search=search, trials=len(errors)))
    assert status == 0, err
    assert says in out
    assert says in results(plan)["about"]
    assert ("None did better" in out) == says.startswith("None")


def test_an_error_that_is_not_finite_is_a_failure_that_counts(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_training(monkeypatch, [np.nan, np.nan])
    status, out, err = call(capsys, *arguments(plan, tmp_path / "s.yaml"))
    assert status == 0, err
    assert "no trial was completed" in out
    trials = results(plan)["trials"]
    assert [t["state"] for t in trials] == ["failed"] * 2
    assert "20 of 20 episodes is not finite" in trials[0]["problem"]


@pytest.mark.parametrize(("head", "judge"), [("learnt", "labels"), ("zero", "labels"), ("learnt", "views")])
def test_a_head_of_other_ways_than_the_episodes_that_judge_is_refused_before_any_training(
    head: str,
    judge: str,
    plan: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = without_training(monkeypatch, [0.5] * 3)
    fixed = {**plan["fixed"], "learner.name": "anil", "learner.options": {"head": head}, "validation.every": 0}
    changes: dict[str, Any] = {"fixed": fixed, "search": {"optim.lr": LR}, "trials": 1, "judge": judge}
    if judge == "labels":
        changes["way"] = 2
    status, _, err = call(capsys, *arguments(plan, tmp_path / "s.yaml", **changes))
    refused = (head, judge) == ("learnt", "labels")
    assert status == (2 if refused else 0), err
    assert ("a head of 3 ways, and trials are judged on 2-way" in err) == refused
    assert len(trained) == (0 if refused else 1)


def test_a_searched_way_that_cannot_be_judged_fails_before_its_training(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = without_training(monkeypatch, [0.5])
    fixed = {**plan["fixed"], "learner.name": "anil", "learner.options": {}, "validation.every": 0}
    changes = {"fixed": fixed, "search": {"episodes.way": {"choice": [4]}}}
    status, _, err = call(capsys, *arguments(plan, tmp_path / "s.yaml", **changes, trials=1))
    assert status == 0, err
    assert "a head of 4 ways" in results(plan)["trials"][0]["problem"]
    assert not trained


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {}}, "something to search"),
        ({"search": {"optim.lrr": LR}}, "has no 'lrr'"),
        ({"search": {"vae.guidance.0.weight": LR}}, "has no '0'"),
        ({"search": {"optim.lr": {"float": [1, 0.1]}}}, "smaller to a larger"),
        ({"search": {"optim.lr": {"float": [0, 0.1], "log": True}}}, "above 0 for log"),
        ({"search": {"optim.lr": {"float": [-1, 0.1]}}}, "lr > 0"),
        ({"search": {"optim.lr": [1, 2]}}, "choice"),
        ({"search": {"encoder.width": {"float": [4, 8]}}}, "encoder.width must be int"),
        ({"search": {"learner.name": {"choice": [1]}}}, "must be str"),
        ({"search": {"run.seed": {"int": [0, 9]}}}, "no better method"),
        ({"search": {"validation.way": {"int": [2, 5]}}}, "same validation episodes"),
        ({"search": {"data.name": {"choice": ["digits"]}}}, "same pictures"),
        ({"command": "evaluate"}, "'train' or 'pretrain'"),
        ({"judge": "luck"}, "'labels' or 'views'"),
        ({"judge": "views", "way": 5}, "episodes of its own"),
        ({"command": "pretrain", "prune": True}, "pretrain has none"),
        ({"base": "nowhere.yaml"}, "YAML file"),
        ({"way": 9}, "9-way"),
        ({"method": "grid"}, "'tpe' or 'random'"),
        ({"trials": 0}, "trials >= 1"),
        ({"episodes": 0}, "episodes >= 2"),
        ({"episodes": -5, "judge": "views"}, "episodes >= 2; received -5"),
        ({"episodes": 1, "judge": "views"}, "episodes >= 2"),
        ({"folder": str(CONFIGS / "folder" / "protonet.yaml")}, "is a file"),
        ({"search": {"optim.average": {"choice": [0, 0.0]}}}, "all different"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_any_training(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    status, _, err = call(capsys, *arguments(plan, tmp_path / "s.yaml", **changes))
    assert status == 2
    assert message in err
    assert not list(Path(plan["folder"]).glob("trial-*"))


def test_a_start_that_knows_the_validation_classes_is_refused(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, fixed = str(tmp_path / "known"), plan["fixed"]
    status, _, err = call(
        capsys, "train", "--config", plan["base"], "--data.root", fixed["data.root"], "--data.size", "16",
        "--encoder.width", "4", "--optim.steps", "2", "--validation.every", "0", "--run.folder", known,
        "--data.options", '{"fractions": [1.0, 0.0, 0.0]}',
    )  # fmt: skip
    assert status == 0, err
    left = {key: value for key, value in fixed.items() if key != "encoder.width"}
    trained = without_training(monkeypatch, [])
    every = {**left, "validation.every": 0}  # with which train itself refuses nothing
    for number, (fixed, search) in enumerate(
        (
            ({**every, "encoder.source": known}, {"optim.lr": LR}),
            ({**every, "teacher": {"sources": [known]}}, {"optim.lr": LR}),
            (every, {"encoder.source": {"choice": [known]}}),
        )
    ):
        for judge in ("labels", "views"):
            changes = {"fixed": fixed, "search": search, "judge": judge, "folder": str(tmp_path / f"{judge}{number}")}
            status, _, err = call(capsys, *arguments(plan, tmp_path / "s.yaml", **changes, trials=3))
            assert status == 2
            assert f"trained on by {known}" in err
    assert not trained


def test_another_sweeps_folder_is_refused(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(plan["folder"])
    folder.mkdir()
    (folder / "letter.txt").write_text("mine")
    status, _, err = call(capsys, *arguments(plan, tmp_path / "s.yaml"))
    assert status == 2
    assert "is not empty" in err
    (folder / "letter.txt").unlink()
    (folder / "sweep.yaml").write_text("sweep: {}\nbase: {}\n")
    status, _, err = call(capsys, *arguments(plan, tmp_path / "s.yaml"))
    assert status == 2
    assert "of other settings" in err


def test_values_are_put_where_keys_say() -> None:
    config = PretrainConfig()
    config.vae.guidance = [{"name": "deformable_pca"}]
    put = with_values(config, {"vae.guidance.0.weight": 3.0, "data.options.splits": "lake", "batch": 7})
    assert put.vae.guidance == [{"name": "deformable_pca", "weight": 3.0}]
    assert (put.data.options, put.batch, put.vae) == ({"splits": "lake"}, 7, put.vae)
    assert config.vae.guidance == [{"name": "deformable_pca"}]
    assert config.data.options == {}
    with pytest.raises(InputError, match="has no 'stepss'"):
        with_values(config, {"optim.stepss": 3})


def test_ranges() -> None:
    ranges = parse_search({"optim.lr": LR, "batch": {"int": [2, 8]}, "vae.guidance": {"choice": [[], [{"name": "x"}]]}})
    assert ranges["optim.lr"].stored(0.001) == 0.001
    assert ranges["optim.lr"].stored(0.1) is None
    assert ranges["batch"].stored(2.5) is None
    choice = ranges["vae.guidance"]
    assert choice.value(choice.stored([{"name": "x"}])) == [{"name": "x"}]
    assert choice.ends() == [[], [{"name": "x"}]]
    same = Range.parse("x", {"choice": [False, 0, [0.5, {"a": 1}], None]})
    assert [same.stored(value) for value in (False, 0.0, (0.5, {"a": 1.0}), None)] == list(same.choices)
    assert same.stored(True) is None
    drawn = ranges["optim.lr"].distribution()
    assert (drawn.low, drawn.high, drawn.log) == (1e-4, 1e-2, True)
    with pytest.raises(InputError, match="all different"):
        Range.parse("x", {"choice": [1, 1]})
