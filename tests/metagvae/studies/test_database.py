"""A sweep's database: found whatever its folder is called, and believed only where a sweep wrote it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from episodes import InputError
from metagvae.studies.sweep.database import DATABASE, check_trials, open_study
from metagvae.studies.sweep.search_space import parse_search

optuna = pytest.importorskip("optuna")
RANGES = parse_search({"optim.lr": {"float": [1e-4, 1e-1]}, "learner.name": {"choice": ["ridge", "prototypes"]}})


def with_trial(where: Path, params: dict[str, Any] | None = None, value: float = 0.5, **attributes: Any) -> Any:
    where.mkdir(exist_ok=True)
    study = open_study(optuna, where)
    given = {"optim.lr": 0.01} if params is None else params
    distributions = {key: RANGES[key].distribution() if key in RANGES else optuna.distributions.FloatDistribution(0, 1)
                     for key in given}  # fmt: skip
    study.add_trial(
        optuna.trial.create_trial(params=given, distributions=distributions, value=value, user_attrs=attributes)
    )
    return study


@pytest.mark.parametrize("name", ["q?1", "q#1", "q%31", "q 1", "q&mode=memory", "é", "a:b@c"])
def test_each_folder_has_a_database_of_its_own(name: str, tmp_path: Path) -> None:
    study = with_trial(tmp_path / name)
    assert (tmp_path / name / DATABASE).is_file()
    assert len(open_study(optuna, tmp_path / name).trials) == 1
    other = tmp_path / f"{name}2"
    other.mkdir()
    assert not open_study(optuna, other).trials
    check_trials(study, tmp_path / name, RANGES)
    assert sorted(os.listdir(tmp_path)) == sorted([name, other.name])


@pytest.mark.parametrize("place", ["/tmp/x", "../x", "trial-0001/../..", "", ".", "trial-0001\n", "x/trial-0001"])
def test_a_trial_outside_the_folder_is_refused(place: str, tmp_path: Path) -> None:
    study = with_trial(tmp_path / "s", folder=place)
    with pytest.raises(InputError, match=r"trials\.db cannot be used as a sweep's database .*not in one such as"):
        check_trials(study, tmp_path / "s", RANGES)


STRANGE: dict[str, dict[str, Any]] = {
    "a key that is not searched": {"params": {"run.folder": 0.5}},
    "an error above one": {"value": 7.0},
    "an infinite error": {"value": float("inf")},
    "an interval as text": {"half_width": "wide"},
    "a problem as a number": {"problem": 3},
    "another attribute": {"shell": "x"},
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_no_sweep_writes_is_refused(name: str, tmp_path: Path) -> None:
    study = with_trial(tmp_path / "s", **STRANGE[name])
    with pytest.raises(InputError, match="cannot be used as a sweep's database"):
        check_trials(study, tmp_path / "s", RANGES)


def test_what_a_sweep_writes_is_taken(tmp_path: Path) -> None:
    for attributes in ({"folder": "trial-0003", "continues": 0}, {"base": True}, {"problem": "x"}, {"half_width": 0.1}):
        study = with_trial(tmp_path / "s", params={"learner.name": '"ridge"', "optim.lr": 0.1}, **attributes)
    check_trials(study, tmp_path / "s", RANGES)


def _cut(path: Path, part: float) -> None:
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])


def _execute(path: Path, *commands: str) -> None:
    connection = sqlite3.connect(path)
    for command in commands:
        connection.execute(command)
    connection.commit()
    connection.close()


DAMAGE: dict[str, Any] = {
    "text": lambda p: p.write_text("not a database" * 100),
    "cut in the middle": lambda p: _cut(p, 0.5),
    "cut in the header": lambda p: _cut(p, 0.0001),
    "zeros in the middle": lambda p: p.write_bytes(p.read_bytes()[:8192] + bytes(16384) + p.read_bytes()[24576:]),
    "emptied": lambda p: p.unlink(),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "no table of trials": lambda p: _execute(p, "DROP TABLE trials"),
    "no study": lambda p: _execute(p, "DROP TABLE studies"),
    "another program's": lambda p: (p.unlink(), _execute(p, "CREATE TABLE trials (name TEXT)")),
    "a state unknown": lambda p: _execute(p, "UPDATE trials SET state = 'DREAMING'"),
    "a distribution that is no JSON": lambda p: _execute(p, "UPDATE trial_params SET distribution_json = '{'"),
    "an attribute that is no JSON": lambda p: _execute(
        p, "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (1, 'folder', '{')"
    ),
    "a date that is none": lambda p: _execute(p, "UPDATE trials SET datetime_start = 'yesterday'"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_database_is_one_sentence(name: str, tmp_path: Path) -> None:
    with_trial(tmp_path / "s")
    (tmp_path / "s" / "trial-0000").mkdir()
    DAMAGE[name](tmp_path / "s" / DATABASE)
    with pytest.raises(InputError, match=r"trials\.db cannot be used as a sweep's database"):
        check_trials(open_study(optuna, tmp_path / "s"), tmp_path / "s", RANGES)
