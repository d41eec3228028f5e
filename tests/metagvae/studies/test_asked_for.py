"""Every option and method that `evaluate` is asked for is measured, or refused in a sentence: none is passed over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import CONFIGS, FAST, call, pictures

SHAPE = ["--way", "3", "--shot", "1", "--query", "3", "--episodes", "20"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures in ``plain`` and two runs on them, of prototypes and of ANIL."""
    from metagvae.cli import main

    home = tmp_path_factory.mktemp("home")
    config, root = str(CONFIGS / "folder" / "protonet.yaml"), str(pictures(home / "plain"))
    for name in ("prototypes", "anil"):
        more = ["--learner.name", name, "--learner.options", "{}", "--run.folder", str(home / name)]
        assert main(["train", "--config", config, "--data.root", root, *more, *FAST]) == 0
    return home


def test_features_of_a_trained_run_are_those_asked_for(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same encoder under a head of the same kind is the oracle."""
    found = []
    for words in (["--run"], ["--run", "--features", "latent"], ["--encoder", "--features", "latent"]):
        file = tmp_path / f"{len(found)}.json"
        line = [words[0], str(home / "prototypes"), *words[1:], "--json", str(file)]
        assert call(capsys, "evaluate", *line, *SHAPE)[0] == 0
        (row,) = json.loads(file.read_text())["results"]
        found.append((row["features"], row["error"]))
    assert [features for features, _ in found] == ["backbone", "latent", "latent"]
    assert found[1] == found[2] != found[0]


def test_features_are_refused_where_a_head_was_trained_for_others(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, said = call(capsys, "evaluate", "--run", str(home / "anil"), "--features", "latent", *SHAPE)
    assert status == 2
    assert "has weights (head.weight) for its own features" in said


def test_a_run_and_an_encoder_of_one_name_are_two_rows(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    words = ["--run", *["prototypes"] * 3, "--encoder", "prototypes", "--learner", "ridge"]
    line = [*words, "--json", str(tmp_path / "x.json")]
    assert call(capsys, "evaluate", *line, *SHAPE)[0] == 0
    rows = json.loads((tmp_path / "x.json").read_text())["results"]
    assert [(row["method"], row["learner"]) for row in rows] == [
        ("prototypes", "ridge"),
        ("run prototypes", "prototypes"),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "--encoder {home}/prototypes --counterfactual light=8",
            "--counterfactual draws support images by a run's prior",
        ),
        ("--run {home}/prototypes --learner ridge", "a run has a head of its own"),
        ('--run {home}/prototypes --head_options {{"steps":3}}', "a run has a head of its own"),
        ("--encoder pixels --data lake-oneshot --query 5", "prescribes its episodes; leave out --query"),
        ("--encoder pixels --data lake-oneshot --episodes 50", "prescribes its episodes; leave out --episodes"),
        ("--encoder pixels --data lake-oneshot --seed 7", "prescribes its episodes; leave out --seed"),
    ],
)
def test_what_would_be_passed_over_is_refused(
    line: str, says: str, home: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    if "lake" in line:
        request.getfixturevalue("real_data")
    status, _, said = call(capsys, "evaluate", *line.format(home=home).split())
    assert status == 2
    assert says in said


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("evaluate --encoder pixels --data digits --way 3 --way 5", "--way is given twice"),
        ("evaluate --encoder pixels --data digits --fit_data mnist", "--fit_data is what pca and random are fitted on"),
        ("data check nothere", "there is no folder nothere here; known data sets: digits"),
    ],
)
def test_what_is_not_there_or_twice_is_said(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, said = call(capsys, *line.split())
    assert status == 2
    assert says in said
