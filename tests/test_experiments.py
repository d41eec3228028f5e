"""experiments/plan.yaml and the script that runs it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from experiments import run as experiments
from metagvae.cli import build_parser

ROOT = Path(__file__).resolve().parent.parent
PLAN = experiments.read_plan()
STALE = {"lake-standard", "mnist"}  # of one seed, where the plan now asks for three


@pytest.mark.parametrize("name", PLAN)
def test_commands_parse_and_follow_one_another(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run that a command takes was made by one before it, with the same seed."""
    monkeypatch.chdir(ROOT)
    made: set[str] = set()
    commands = PLAN[name].commands(name, [0, 3], Path("runs"))
    trainings = [command for command in commands if command[0].name == "encoder"]
    measurements = commands[len(trainings) :]
    for left, arguments in trainings:
        build_parser(arguments[0]).parse_args(arguments)
        taken = {word for word in arguments if re.fullmatch(r"runs/[\w-]+", word)} - {str(left.parent)}
        assert taken <= made
        assert not experiments.NAME.search(" ".join(arguments))
        assert all(word.endswith(f"-seed{arguments[arguments.index('--run.seed') + 1]}") for word in taken)
        made.add(str(left.parent))
    assert measurements
    for result, measure in measurements:
        build_parser(measure[0]).parse_args(measure)
        measured = [part for word in measure if word.startswith("runs/") for part in word.split("+")]
        assert set(measured) <= made
        assert len(measured) % 2 == 0
        assert measured
        assert result.parent == ROOT / "experiments" / "results"
        assert result.stem.startswith(name)
        assert not experiments.NAME.search(" ".join(measure))


def test_an_encoder_is_joined_with_the_run_of_every_seed() -> None:
    plain = experiments.Experiment("", [1, 2], {"a": "pretrain"}, "evaluate --encoder shipped+{a} {a} {a+} --way 5")
    _, words = plain.commands("name", [1, 2], Path("runs"))[-1]
    assert words[2:7] == [*(f"shipped+runs/a-seed{i}" for i in (1, 2)), *(f"runs/a-seed{i}" for i in (1, 2)), words[6]]
    assert words[6] == "runs/a-seed1+runs/a-seed2"


def test_a_run_means_the_same_in_every_experiment() -> None:
    lines: dict[str, str] = {}
    for experiment in PLAN.values():
        for stem, line in experiment.runs.items():
            assert lines.setdefault(stem, line) == line, stem


def test_what_is_there_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run whose encoder is there is left; the first that fails ends all."""
    called: list[list[str]] = []
    monkeypatch.setattr(experiments, "metagvae", lambda arguments: called.append(arguments) or len(called) // 2)
    monkeypatch.setattr(experiments, "ROOT", tmp_path)
    (tmp_path / "omniglot-warp-pairs-seed5" / "encoder").mkdir(parents=True)
    monkeypatch.setattr(
        "sys.argv", ["experiments.py", "omniglot-supervised", "--seeds", "5", "--folder", str(tmp_path)]
    )
    assert experiments.main() == 1
    assert [arguments[0] for arguments in called] == ["train", "evaluate"]
    assert f"{tmp_path}/omniglot-warp-pairs-seed5" in called[0]
    assert capsys.readouterr().out.count("done $") == 1


def test_a_measurement_of_other_seeds_or_episodes_is_not_done(tmp_path: Path) -> None:
    ask = PLAN["guidance-frozen"].commands
    (result, arguments), *_ = [c for c in ask("guidance-frozen", [0, 1], Path("runs")) if c[0].suffix == ".json"]
    left = tmp_path / result.name

    def noted(*words: str) -> None:
        left.write_text(json.dumps({"provenance": {"command": shlex.join(["metagvae", *words])}, "results": []}))

    assert not experiments.is_done(left, arguments)
    noted(*arguments)
    assert experiments.is_done(left, arguments)
    noted(*[word.replace("runs/", "elsewhere/") for word in arguments[:-1]], "docs/results/other.json")
    assert experiments.is_done(left, arguments), "where runs lie and results go does not matter"
    for seeds in ([0], [0, 2], [0, 1, 2]):
        ((_, other),) = [c for c in ask("guidance-frozen", seeds, Path("runs")) if c[0].suffix == ".json"]
        assert not experiments.is_done(left, other), seeds
    assert not experiments.is_done(left, [*("1000" if word == "10000" else word for word in arguments)])
    assert not experiments.is_done(left, [*arguments, "--seed", "1"])


def test_committed_measurements_of_the_plan_that_are_stale_are_known() -> None:
    """Of the results that are committed only these were measured otherwise than the plan says."""
    stale = {
        left.stem
        for name, experiment in PLAN.items()
        for left, arguments in experiment.commands(name, experiment.seeds, Path("runs"))
        if left.suffix == ".json" and left.exists() and not experiments.is_done(left, arguments)
    }
    assert stale <= STALE


def test_results_are_light_and_name_no_machine() -> None:
    files = sorted((ROOT / "experiments" / "results").glob("*.json"))
    assert len(files) > 40
    assert sum(path.stat().st_size for path in files) < 1_750_000
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(?:tmp|root|home|work)/", text), path.name


def test_no_new_result_is_of_a_tree_with_changes() -> None:
    """Sixteen old ones are, from before commands read the commit first; a new one is measured again."""
    files = (ROOT / "experiments" / "results").glob("*.json")
    made = [json.loads(path.read_text(encoding="utf-8")).get("provenance", {}) for path in files]
    commits = [str(one.get("commit")) for one in made]
    assert sum(commit.endswith("-dirty") for commit in commits) <= 16
