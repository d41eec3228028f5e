"""A sweep's database of trials, opened by its path whatever the folder is called, and checked before it is believed.

It is SQLite's, kept by optuna, and lies in a folder that may be a stranger's or damaged.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from episodes import InputError
from episodes.untrusted.typed import fits
from metagvae.studies.sweep.search_space import Range

DATABASE = "trials.db"
_FOLDER = re.compile(r"trial-\d{4,9}")
_ATTRIBUTES: dict[str, Any] = {"base": bool, "continues": int, "folder": str, "problem": str, "half_width": float}
_KEEPERS = ("optuna", "sqlalchemy", "sqlite3", "alembic")  # whose errors speak of the database


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Within it, what optuna and the packages under it raise is one sentence about the sweep's database."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _KEEPERS:
            raise
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: Exception | str) -> InputError:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(
        f"{folder / DATABASE} cannot be used as a sweep's database ({text}). Put back a copy of it, or sweep into "
        "a new folder; the trials' own runs are intact."
    )


def open_study(package: Any, folder: Path, **options: Any) -> Any:
    """optuna's study of a sweep's folder, made if there is none; ``options`` are `optuna.create_study`'s.

    Raises:
        InputError: if the database is damaged, or cannot be written.
    """
    path = (folder / DATABASE).resolve()

    def connect() -> sqlite3.Connection:  # by its path: within an address a name's ?, # and % would mean something
        return sqlite3.connect(path, timeout=60, check_same_thread=False)

    try:
        if path.exists():
            with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=60) as connection:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            connection.close()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
        storage = package.storages.RDBStorage(f"sqlite:///{DATABASE}", engine_kwargs={"creator": connect})
        return package.create_study(
            storage=storage, study_name="sweep", direction="minimize", load_if_exists=True, **options
        )
    except Exception as error:  # by what is damaged, of a dozen kinds
        raise _damaged(folder, error) from error


def check_trials(study: Any, folder: Path, ranges: Mapping[str, Range]) -> None:
    """Raises `InputError` unless every trial is one that a sweep over ``ranges`` writes into ``folder``."""
    try:
        trials = study.get_trials(deepcopy=False)
        lying = [path.name for path in folder.glob("trial-*") if _FOLDER.fullmatch(path.name)]
        if any(int(name.partition("-")[2]) >= len(trials) for name in lying):  # each is known before it is made
            raise ValueError(f"it knows {len(trials)} trials, and {max(lying)} lies beside it")
        for trial in trials:
            _check_trial(trial, ranges)
    except Exception as error:
        raise _damaged(folder, error) from error


def _check_trial(trial: Any, ranges: Mapping[str, Range]) -> None:
    name = f"trial {trial.number}"
    waiting = trial.system_attrs.get("fixed_params", {})
    for key, stored in {**waiting, **trial.params}.items():
        if key not in ranges or ranges[key].stored(ranges[key].value(stored)) != stored:
            raise ValueError(f"{name} has {key[:60]} = {str(stored)[:60]}, which is not searched")
    for key, value in trial.user_attrs.items():
        if key not in _ATTRIBUTES or not fits(value, _ATTRIBUTES[key]):
            raise ValueError(f"{name} has {key[:60]} = {str(value)[:60]}")
    place = trial.user_attrs.get("folder")
    if place is not None and not _FOLDER.fullmatch(place):
        raise ValueError(f"{name} is in the folder {place[:100]!r}, not in one such as 'trial-0003'")
    if trial.state.name != "COMPLETE":
        return
    error: Any = trial.value
    if not fits(error, float) or not 0 <= error <= 1:
        raise ValueError(f"{name} has the error {error!r}")
