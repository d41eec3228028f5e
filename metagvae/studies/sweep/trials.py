"""Sweeps: trials of a training config under optuna, each in a run folder, judged on the validation split.

The database holds which trials there are; a trial's run folder holds what it computed. A trial that was killed is
found as one still running (the folder's lock tells that nobody runs it), marked failed and enqueued again with its
folder, so that its training goes on from its last state. The test split is never loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from episodes import Episodes, EpisodeShape, ImageBank, InputError, to_float
from episodes.paths import expanded
from episodes.untrusted.plain_files import read_yaml, yaml_text
from episodes.whole_files import write_beside
from metagvae.config.sections import PretrainConfig, TrainConfig, to_dict
from metagvae.evaluation.evaluator import Evaluator
from metagvae.evaluation.results import interval
from metagvae.learners import Learner, learner_class, make_learner
from metagvae.runs.metrics_log import read_metrics
from metagvae.storage.atomic_files import check_links, is_remnant, make_folder, sweep, write_json
from metagvae.storage.folder_lock import FolderLock
from metagvae.studies.selection import check_view_images, view_errors
from metagvae.studies.sweep.database import check_trials, open_study, readable
from metagvae.studies.sweep.results import MEASURED, Sweep, Trial, collect, run_folder, write
from metagvae.studies.sweep.search_space import Range, SweepConfig, get_value, parse_search, with_values
from metagvae.training.episodic import train
from metagvae.training.loop import run_device
from metagvae.training.pretraining import pretrain
from metagvae.zoo.leakage import refuse_trained_sources

Base = TrainConfig | PretrainConfig
_PLAN = "sweep.yaml"
JUDGED = 1024  # validation images that a trial is judged on without labels
_PATIENCE = 3  # trials in a row that cannot work before the sweep gives up


def optuna() -> Any:
    """The package, quiet; raises `InputError` if it is missing."""
    try:
        import optuna as package
    except ImportError as error:
        raise InputError(
            "sweeps need the package optuna; pip install 'metagvae[sweep]' or pip install optuna."
        ) from error
    package.logging.set_verbosity(package.logging.WARNING)
    return package


def run_sweep(base: Base, plan: SweepConfig, tell: Callable[[Trial], None] = lambda trial: None) -> Sweep:
    """Runs trials until there are ``plan.trials`` finished ones or ``plan.minutes`` are over.

    Leaves in ``plan.folder`` the database, ``sweep.yaml``, ``trials.json``, ``best.yaml`` and a run folder per trial.
    The first trial is of the base's own values, if they lie in the ranges.

    Args:
        base: what is not searched.
        tell: told each trial that ends.

    Raises:
        InputError: before any training if the ranges cannot work; later if three trials in a row could not.
        metagvae.runs.signals.Interrupted: if it was stopped; calling again goes on.
    """
    package = optuna()
    base, ranges = with_values(base, plan.fixed), parse_search(plan.search)
    for key, range_ in ranges.items():
        for value in range_.ends():
            with_values(base, {key: value})
    folder = expanded(plan.folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"a sweep needs a folder of its own; {folder} is a file. Choose another --folder.")
    check_links(folder)
    judge = _Judge(base, plan)
    lock = _open(folder, base, plan)
    try:
        with readable(folder):
            study = _study(package, folder, plan)
            check_trials(study, folder, ranges)
            if not study.trials:
                start = {key: range_.stored(get_value(to_dict(base), key)) for key, range_ in ranges.items()}
                if None not in start.values():
                    study.enqueue_trial(start, user_attrs={"base": True})
            _take_up(package, study)
            distributions = {key: range_.distribution() for key, range_ in ranges.items()}
            deadline = time.monotonic() + 60 * plan.minutes if plan.minutes else float("inf")
            failures = 0
            while _finished(study) < plan.trials and time.monotonic() < deadline:
                asked = study.ask(distributions)
                _run(package, study, asked, base, ranges, judge, plan, folder)
                found = collect(study, folder, base, ranges)
                write(found, base, plan)
                last = found.trials[asked.number]
                tell(last)
                failures = failures + 1 if last.state == "failed" else 0
                if failures == _PATIENCE:
                    raise InputError(f"{_PATIENCE} trials in a row could not work, the last because: {last.problem}")
            found = collect(study, folder, base, ranges)
            write(found, base, plan)
            return found
    finally:
        lock.release()


class _Judge:
    """Measures trials on the same episodes of the validation split."""

    def __init__(self, base: Base, plan: SweepConfig) -> None:
        def shape(name: str, usual: int) -> int:
            given = getattr(plan, name)
            return given if given is not None else getattr(getattr(base, "validation", None), name, usual)

        self.shape = EpisodeShape(shape("way", 5), shape("shot", 1), shape("query", 15))
        self.plan = plan
        if plan.prune and isinstance(base, TrainConfig) and not base.validation.every:
            raise InputError("prune goes by the validation curve; set validation.every in the base.")
        if plan.judge == "views":  # whose episodes are of single images
            check_view_images(len(self._unknown(base)))
            return
        if not any(key == "episodes.way" or key.startswith("learner.") for key in plan.search):
            self._check_way(base)
        base.data.make().check_episodes("validation", self.shape)
        self._evaluator(base, self._unknown(base)).check(self.shape.way, self.shape.shot)

    def _check_way(self, config: Base) -> None:
        """Raises `InputError` if the learner, once trained, could not answer the episodes that judge it."""
        if self.plan.judge == "views" or not isinstance(config, TrainConfig):
            return
        chosen, way = config.learner, config.episodes.way
        kind = learner_class(chosen.name, chosen.options)
        if way != self.shape.way and not kind.answers_any_way(chosen.options):
            raise InputError(
                f"the learner '{chosen.name}' has a head of {way} ways, and trials are judged on {self.shape.way}-way "
                f"episodes; give the sweep --way {way}, or set episodes.way {self.shape.way} in the base."
            )

    def _unknown(self, config: Base) -> ImageBank:
        """The validation images; raises `InputError` if the config's start or teacher was trained on their classes."""
        bank = config.data.make().load("validation")
        if isinstance(config, TrainConfig):
            refuse_trained_sources(config, bank)
        return bank

    def _evaluator(self, config: Base, bank: ImageBank) -> Evaluator:
        plan, device = self.plan, run_device(config.run, config.optim)
        turns = config.data.make().rotations == "episode"
        within = config.validation.within if isinstance(config, TrainConfig) else None
        return Evaluator(bank, Episodes(self.shape, plan.seed, "validation", turns, within), plan.episodes, device)

    def errors(self, config: Base, watch: Callable[[int, float], None]) -> np.ndarray:
        """Trains, or goes on with, one config, and measures it: float64 ``[episodes]``.

        Raises:
            InputError: before the training if it could not be judged; after it if an error is not finite.
        """
        self._check_way(config)
        bank = self._unknown(config)
        learner: Learner
        if isinstance(config, TrainConfig):
            learner = train(config, watch=watch)
        else:
            learner = make_learner("prototypes", pretrain(config).encoder, self.shape.way)
        if self.plan.judge == "views":
            errors = self._without_labels(config, bank, learner)
        else:
            (errors,) = self._evaluator(config, bank).errors(learner, [(self.shape.way, self.shape.shot)])
        lost = len(errors) - np.isfinite(errors).sum()
        if lost:  # optuna would drop such a trial without a word
            raise InputError(f"the error of {lost} of {len(errors)} episodes is not finite; try a lower optim.lr.")
        return errors

    def _without_labels(self, config: Base, bank: ImageBank, learner: Learner) -> np.ndarray:
        device = run_device(config.run, config.optim)
        rows = torch.randperm(len(bank), generator=torch.Generator().manual_seed(self.plan.seed))[:JUDGED]
        device.place(learner.eval())
        shown = to_float(bank.gather(rows)).to(device.device)
        return view_errors(learner.encoder, shown, self.plan.seed, self.plan.episodes)


def _open(folder: Path, base: Base, plan: SweepConfig) -> FolderLock:
    """Locks the sweep's folder, new or of the same sweep."""
    bounds = ("trials", "minutes", "folder", "base")
    content = {
        "sweep": {key: value for key, value in asdict(plan).items() if key not in bounds},
        "base": {key: value for key, value in to_dict(base).items() if key != "run"} | {"seed": base.run.seed},
    }
    path = folder / _PLAN
    known = path.is_file()
    if not known and folder.exists() and any(e.name != "lock" and not is_remnant(e) for e in folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no sweep; a sweep needs a folder of its own (--folder).")
    check_links(folder)
    make_folder(folder)
    lock = FolderLock(folder)
    try:
        sweep(folder)
        if not known:
            write_beside(path, yaml_text(content).encode())
        elif (before := read_yaml(path, "the plan of a sweep")) != content:
            pairs = [(part, key) for part in content for key in content[part]]
            old = before if isinstance(before, dict) else {}
            differ = [f"{p}.{k}" for p, k in pairs if (old.get(p) or {}).get(k) != content[p][k]]
            raise InputError(
                f"{folder} holds a sweep of other settings: {', '.join(differ) or 'some left out'} differ. Trials of "
                "both cannot be compared; give the settings as they were, or another --folder."
            )
    except BaseException:
        lock.release()
        raise
    return lock


def _study(package: Any, folder: Path, plan: SweepConfig) -> Any:
    study = open_study(package, folder, pruner=_pruner(package, plan))
    # the draws of a launch must not repeat those of the launch before
    seed = (plan.seed + 1000 * len(study.trials)) % 2**32  # numpy's range
    samplers = package.samplers
    study.sampler = samplers.TPESampler(seed=seed) if plan.method == "tpe" else samplers.RandomSampler(seed=seed)
    return study


def _pruner(package: Any, plan: SweepConfig) -> Any:
    return package.pruners.MedianPruner(n_startup_trials=4) if plan.prune else package.pruners.NopPruner()


def _take_up(package: Any, study: Any) -> None:
    """Marks trials whose process is gone as failed, and enqueues them again with their run folder."""
    states = package.trial.TrialState
    trials = study.get_trials(deepcopy=False)
    redone = {trial.user_attrs.get("continues") for trial in trials}
    for trial in trials:
        gone = trial.state == states.RUNNING or (trial.state == states.FAIL and "problem" not in trial.user_attrs)
        if gone and trial.number not in redone:
            again = {**trial.user_attrs, "continues": trial.number, "folder": run_folder(trial)}
            study.enqueue_trial(trial.params, user_attrs=again)
        if trial.state == states.RUNNING:
            study.tell(trial.number, state=states.FAIL)


def _finished(study: Any) -> int:
    trials = study.get_trials(deepcopy=False)
    return sum(t.state.name in ("COMPLETE", "PRUNED") or "problem" in t.user_attrs for t in trials)


def _of_trial(base: Base, ranges: dict[str, Range], params: dict[str, Any], folder: Path) -> Base:
    config = with_values(base, {key: ranges[key].value(stored) for key, stored in params.items()})
    return replace(config, run=replace(config.run, folder=str(folder), resume="auto", stop_after=None))


def _run(
    package: Any,
    study: Any,
    asked: Any,
    base: Base,
    ranges: dict[str, Range],
    judge: _Judge,
    plan: SweepConfig,
    folder: Path,
) -> None:
    """One trial, told to the study; left running if it is interrupted, for `_take_up` to find."""
    states = package.trial.TrialState
    place = folder / run_folder(asked)
    reported: set[int] = set()

    def watch(step: int, error: float) -> None:
        if step not in reported:
            reported.add(step)
            asked.report(error, step)
        if asked.should_prune():
            raise package.TrialPruned

    try:
        if plan.prune:  # what the launch before had seen
            for line in read_metrics(place):
                if "validation_error" in line and line["step"] not in reported:
                    reported.add(int(line["step"]))
                    asked.report(line["validation_error"], int(line["step"]))
        errors = judge.errors(_of_trial(base, ranges, asked.params, place), watch)
    except package.TrialPruned:
        study.tell(asked, state=states.PRUNED)
    except (InputError, torch.cuda.OutOfMemoryError) as error:
        asked.set_user_attr("problem", str(error)[:1000])
        study.tell(asked, state=states.FAIL)
    else:
        content = {
            **asdict(judge.shape),
            "seed": plan.seed,
            "error": float(errors.mean()),
            "half_width": interval(errors),
            "per_episode": errors.tolist(),
        }
        write_json(place / MEASURED, content)
        asked.set_user_attr("half_width", interval(errors))
        study.tell(asked, float(errors.mean()))
