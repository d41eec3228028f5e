"""States that are not of the run: each is one sentence, and what the file says of the optimiser is never taken over."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from episodes import InputError
from metagvae.config.optimisation import OptimSection
from metagvae.config.sections import VAESection
from metagvae.runs.signals import Interrupted
from metagvae.runs.states import States
from metagvae.training.pretraining import pretrain
from tests.support.trainings import assert_same_run, bank, do_train, pretrain_config, train_config


def set_at(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        *way, last = keys
        for key in way:
            state = state[key]
        state[last] = value

    return change


def without(*keys: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        *way, last = keys
        for key in way:
            state = state[key]
        del state[last]

    return change


def first_of(part: str, change: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    """Changes the first floating weight of the module or of the best weights."""

    def changed(state: dict[str, Any]) -> None:
        weights = state["module"] if part == "module" else state["best"]["best"]
        name = next(name for name, value in weights.items() if value.is_floating_point() and value.numel() > 1)
        weights[name] = change(weights[name])

    return changed


def moment(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    def changed(state: dict[str, Any]) -> None:
        parts = state["optimizer"]["state"][0]
        parts[name] = change(parts[name])

    return changed


def with_nan(values: torch.Tensor) -> torch.Tensor:
    values = values.clone()
    values.view(-1)[0] = torch.nan
    return values


GROUP = ("optimizer", "param_groups", 0)
CHANGES = {
    "maximize": (set_at(*GROUP, "maximize", value=True), "maximize True"),
    "another decay": (set_at(*GROUP, "weight_decay", value=0.5), "weight_decay 0.5"),
    "other betas": (set_at(*GROUP, "betas", value=(0.0, 0.0)), "betas"),
    "an eps of zero": (set_at(*GROUP, "eps", value=0.0), "eps 0.0"),
    "amsgrad": (set_at(*GROUP, "amsgrad", value=True), "amsgrad True"),
    "a flag as a number": (set_at(*GROUP, "maximize", value=0), "maximize 0"),
    "no betas": (without(*GROUP, "betas"), "it has no 'betas'"),
    "fewer weights": (set_at(*GROUP, "params", value=[0]), "of other weights"),
    "no groups": (set_at("optimizer", "param_groups", value=[]), "of other weights"),
    "no best": (without("best"), "it has no 'best'"),
    "no best weights": (without("best", "best"), "it has no 'best'"),
    "a best without weights": (set_at("best", "best", value={}), "disagree"),
    "a best step beyond": (set_at("best", "best_step", value=9), "best step is 9"),
    "a best error of NaN": (set_at("best", "best_error", value=math.nan), "lowest error is nan"),
    "a best error below zero": (set_at("best", "best_error", value=-1.0), "lowest error is -1.0"),
    "no skipped": (without("skipped"), "it has no 'skipped'"),
    "skipped below zero": (set_at("skipped", value=-5), "left out -5"),
    "no seconds": (without("seconds"), "it has no 'seconds'"),
    "seconds of NaN": (set_at("seconds", value=math.nan), "nan seconds"),
    "seconds as text": (set_at("seconds", value="3"), "'3' seconds"),
    "no module": (without("module"), "it has no 'module'"),
    "no optimiser": (without("optimizer"), "it has no 'optimizer'"),
    "NaN among the weights": (first_of("module", with_nan), "is not finite"),
    "NaN among the best weights": (first_of("best", with_nan), "best's .* is not finite"),
    "weights of another shape": (first_of("module", lambda w: w[:1]), "and this network's"),
    "weights of another type": (first_of("module", torch.Tensor.double), "float64"),
    "best weights of another shape": (first_of("best", lambda w: w[:1]), "and this network's"),
    "moments of another shape": (moment("exp_avg", lambda m: m[:1]), "exp_avg of weight 0"),
    "moments of NaN": (moment("exp_avg_sq", with_nan), "exp_avg_sq of weight 0 is not finite"),
    "a second moment below zero": (moment("exp_avg_sq", lambda m: m - 1), "below zero"),
    "steps beyond": (moment("step", lambda _: torch.tensor(1e6)), "took 1e"),
    "no step": (without("optimizer", "state", 0, "step"), "moments of weight 0"),
    "moments of no weight": (lambda s: s["optimizer"]["state"].update({999: s["optimizer"]["state"][0]}), "weight 999"),
    "a list of moments": (set_at("optimizer", "state", value=[1]), "list"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resumption") / "run"
    with pytest.raises(Interrupted):
        do_train(train_config(folder, 8, run_stop_after=5))
    return folder


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_that_is_not_of_the_run_is_refused(name: str, stopped: Path) -> None:
    change, message = CHANGES[name]
    states = States(stopped / "state")
    whole = states.path(5).read_bytes()
    state = states.load()
    assert state is not None
    try:
        change(state)
        states.save(5, state)
        with pytest.raises(InputError, match=rf"step-0000005\.pt is not of this run: .*{message}"):
            do_train(train_config(stopped, 8, run_resume=True))
    finally:
        states.path(5).write_bytes(whole)


def test_a_step_beyond_the_run_is_refused(stopped: Path) -> None:
    states = States(stopped / "state")
    state = states.load()
    assert state is not None
    path = states.path(9_999_999)
    torch.save({**state, "step": 9_999_999}, path)
    try:
        with pytest.raises(InputError, match="it is of step 9999999 of 8"):
            do_train(train_config(stopped, 8, run_resume=True))
    finally:
        path.unlink()


def test_the_state_itself_goes_on_to_the_same_end(stopped: Path, tmp_path: Path) -> None:
    do_train(train_config(tmp_path / "whole", 8))
    do_train(train_config(stopped, 8, run_resume=True))
    assert_same_run(tmp_path / "whole", stopped, "learner.safetensors")


WARPED = VAESection(guidance=[{"name": "deformable_pca"}], decoder_width=4)


@pytest.mark.parametrize("rate", [1e15, 1e30])
def test_a_rate_that_ruins_the_weights_ends_in_one_sentence(rate: float, tmp_path: Path) -> None:
    """The warp's grid is NaN then: torch's kernel, asked for a gradient there, ended the process."""
    config = pretrain_config(tmp_path / "run")
    config.vae, config.optim = WARPED, OptimSection(steps=12, lr=rate)
    with pytest.raises(InputError, match="not finite"):
        pretrain(config, bank())


@pytest.mark.parametrize(
    "settings",
    [{"lr": 1e38}, {"lr": math.nan}, {"lr": math.inf}, {"lr": 1.0, "weight_decay": 1e38}, {"weight_decay": math.nan},
     {"clip": math.nan}, {"steps": 10**30}],
    ids=str,
)  # fmt: skip
def test_settings_that_no_step_can_be_made_with_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^optim"):
        OptimSection(**settings)
