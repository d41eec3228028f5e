"""Findings of a sweep: its trials, the best one's config, and how sure the gain is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from episodes.untrusted.plain_files import read_json, yaml_text
from episodes.whole_files import write_beside
from metagvae.config.sections import PretrainConfig, TrainConfig, to_dict
from metagvae.evaluation.class_interval import signed
from metagvae.evaluation.results import interval
from metagvae.evaluation.text_table import text_table
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.studies.sweep.search_space import Range, SweepConfig, with_values

MEASURED = "validation.json"  # in a trial's run folder


@dataclass(frozen=True)
class Trial:
    """One trial: its values, and the validation error in [0, 1] with half of its 95 % interval over episodes.

    ``state`` is ``complete``, ``pruned`` (its validation curve lay above the others'), ``failed`` (it could not work;
    ``problem`` says why), ``killed`` (redone as a later trial) or ``running``.
    """

    number: int
    state: str
    folder: str
    seed: int
    values: dict[str, Any]
    error: float | None = None
    half_width: float | None = None
    seconds: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Sweep:
    """Findings of a sweep so far.

    Args:
        base: the trial of the base's own values, the last one if it was redone; None if none was run.
        gain: the best trial's error minus that of ``base``, with half of its 95 % interval.
    """

    folder: Path
    ranges: dict[str, Range]
    trials: list[Trial]
    best: Trial | None
    base: Trial | None
    gain: tuple[float, float] | None

    def rows(self) -> list[dict[str, str]]:
        """A row per trial, as text by column; the best is marked."""
        rows = []
        for t in self.trials:
            error = f"{100 * t.error:.2f} ± {100 * (t.half_width or 0):.2f}" if t.error is not None else "–"
            state = f"{t.state}: {t.problem[:60]}" if t.problem else t.state
            rows.append(
                {
                    "trial": f"{t.number}{' *' if t == self.best else ''}",
                    **{key: _short(t.values.get(key)) for key in self.ranges},
                    "seed": str(t.seed),
                    "error, %": error,
                    "seconds": f"{t.seconds:.0f}" if t.seconds is not None else "–",
                    "state": state,
                }
            )
        return rows

    def table(self) -> str:
        """Plain text, a line per trial."""
        rows = self.rows()
        return text_table([list(rows[0]), *(list(row.values()) for row in rows)] if rows else [])

    def about(self) -> str:
        """The gain over the base's own values, or why there is none to tell; empty where no trial was completed."""
        if self.best is None:
            return ""
        if self.base is None:
            return (
                "No trial ran the base's own values, which do not all lie in the ranges: nothing says whether the best "
                "is better than the base."
            )
        if self.best == self.base:
            return "None did better than the base's own values."
        if self.gain is None:
            return f"The base's own values gave no error to compare with (trial {self.base.number}: {self.base.state})."
        gap, half = (100 * part for part in self.gain)
        mark = "" if abs(gap) > half else " (not clear of zero)"
        return f"The best against the base's own values, on the same episodes: {signed(gap)} ± {half:.2f} points{mark}."


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run_folder(trial: Any) -> str:
    return str(trial.user_attrs.get("folder", f"trial-{trial.number:04d}"))


def collect(study: Any, folder: Path, base: TrainConfig | PretrainConfig, ranges: dict[str, Range]) -> Sweep:
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "RUNNING": "running"}
    trials, own = [], None
    for t in study.get_trials(deepcopy=False):
        if t.state.name == "WAITING":
            continue
        problem = t.user_attrs.get("problem", "")
        state = names.get(t.state.name, "failed" if problem else "killed")
        trials.append(
            Trial(
                number=t.number,
                state=state,
                folder=run_folder(t),
                seed=base.run.seed,
                values={key: ranges[key].value(stored) for key, stored in t.params.items()},
                error=t.value if state == "complete" else None,
                half_width=t.user_attrs.get("half_width"),
                seconds=t.duration.total_seconds() if t.duration and state != "killed" else None,
                problem=problem,
            )
        )
        if t.user_attrs.get("base"):
            own = trials[-1]
    complete = [trial for trial in trials if trial.error is not None]
    best = min(complete, key=lambda trial: trial.error or 0.0, default=None)
    gain = None
    if best and own and own.error is not None and best != own:
        gap = _per_episode(folder / best.folder) - _per_episode(folder / own.folder)
        gain = float(gap.mean()), interval(gap)
    return Sweep(folder, ranges, trials, best, own, gain)


def _per_episode(run: Path) -> np.ndarray:
    content = read_json(run / MEASURED, "what a sweep measured of a trial", most=2**24)
    return np.array(content["per_episode"], dtype=np.float64)


def write(found: Sweep, base: TrainConfig | PretrainConfig, plan: SweepConfig) -> None:
    best = found.best
    content = {
        "provenance": provenance(),
        "command": plan.command,
        "judged": {"by": plan.judge, "split": "validation", "episodes": plan.episodes, "seed": plan.seed},
        "search": plan.search,
        "best": best.number if best else None,
        "gain": {"difference": found.gain[0], "half_width": found.gain[1]} if found.gain else None,
        "rows": found.rows(),
        "about": found.about(),
        "trials": [asdict(trial) for trial in found.trials],
    }
    write_json(found.folder / "trials.json", content)
    if best:
        config = with_values(base, best.values)
        config = replace(config, run=replace(config.run, folder=str(found.folder / "best"), resume=False))
        write_beside(found.folder / "best.yaml", yaml_text(to_dict(config)).encode())
