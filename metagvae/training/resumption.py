"""Checks of a state before a run goes on from it: whole, finite, of this network and of this optimiser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from episodes import InputError
from metagvae.training.averaged_weights import AveragedWeights

# what makes another optimiser of AdamW; its rate is set anew at each step, and how it computes is this machine's affair
_SETTINGS = ("betas", "eps", "weight_decay", "amsgrad", "maximize")
_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}


def restore(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    steps: int,
    where: Path,
    average: AveragedWeights | None = None,
) -> None:
    """Puts a state's weights and moments in place, once all of it was checked.

    Args:
        state: as `metagvae.runs.states.States` reads it: ``module``, ``optimizer``, ``best`` (the three of validation),
            ``skipped``, ``seconds`` and ``step``; ``average`` where one is kept.
        steps: how many the run has.
        where: the state's file, for the message.
        average: the mean of the weights that goes on with them.

    Raises:
        InputError: naming what is missing, of another shape or type, not finite, or beyond the run.
    """
    try:
        _check_progress(state, steps)
        weights = dict(module.state_dict())
        _check_tensors(state["module"], weights, "module")
        best = state["best"]
        if best["best"]:
            _check_tensors(best["best"], weights, "best")
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        _check_optimizer(state["optimizer"], optimizer, trained, state["step"])
        _check(("average" in state) == (average is not None), "one of them keeps averaged weights and the other none")
        if average is not None:
            _check_tensors(state["average"]["mean"], weights, "average")
            count = state["average"]["count"]
            _check(
                type(count) is int and 0 <= count <= state["step"], f"it averages {count!r} of {state['step']} steps"
            )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        missing = f"it has no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise InputError(
            f"the state {where} is not of this run: {missing[:300]}. Resume with the files as the run left them, "
            "delete this one to go on from the older one, or start a new folder."
        ) from error
    module.load_state_dict(state["module"])
    if average is not None:
        average.restore(state["average"])
    # its own settings, not the file's
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state["optimizer"]["state"]})


def _check_progress(state: Mapping[str, Any], steps: int) -> None:
    step, best = state["step"], state["best"]
    _check(type(step) is int and 0 < step <= steps, f"it is of step {step!r} of {steps}")
    skipped, seconds = state["skipped"], state["seconds"]
    _check(type(skipped) is int and 0 <= skipped <= step, f"it has left out {skipped!r} of {step} steps")
    _check(_is_number(seconds) and 0 <= seconds < math.inf, f"it took {seconds!r} seconds")
    error, chosen = best["best_error"], best["best_step"]
    _check(_is_number(error) and error >= 0, f"its lowest error is {error!r}")  # infinite before any validation
    _check(type(chosen) is int and -1 <= chosen <= step, f"its best step is {chosen!r} of {step}")
    _check(isinstance(best["best"], Mapping), "its best weights are no weights by name")
    _check(bool(best["best"]) == (chosen >= 0) == (error < math.inf), "its best weights, step and error disagree")


def _check_tensors(found: Mapping[str, Any], own: Mapping[str, Tensor], part: str) -> None:
    """That ``found`` has the tensors of ``own`` by name, shape and type, all finite."""
    _check(isinstance(found, Mapping), f"its {part} is a {type(found).__name__}")
    differing = sorted(set(found) ^ set(own))
    _check(not differing, f"another network: its {part} and this one differ in {', '.join(map(str, differing[:3]))}")
    for name, value in own.items():
        _check_tensor(found[name], value, f"{part}'s {name}")


def _check_tensor(found: Any, like: Tensor, name: str) -> None:
    _check(isinstance(found, Tensor), f"{name} is a {type(found).__name__}")
    text = f"{name} is {found.dtype} {list(found.shape)}, and this network's {like.dtype} {list(like.shape)}"
    _check(found.shape == like.shape and found.dtype == like.dtype, text)
    _check(not found.is_floating_point() or bool(torch.isfinite(found).all()), f"{name} is not finite")


def _check_optimizer(
    found: Mapping[str, Any], optimizer: torch.optim.Optimizer, trained: list[nn.Parameter], step: int
) -> None:
    groups, moments = found["param_groups"], found["state"]
    own = optimizer.state_dict()["param_groups"]
    _check(
        len(groups) == len(own)
        and all(group["params"] == mine["params"] for group, mine in zip(groups, own, strict=True)),
        "its optimiser is of other weights",
    )
    for group, mine in zip(groups, own, strict=True):
        for key in _SETTINGS:
            _check(
                type(group[key]) in (type(mine[key]), list) and _plain(group[key]) == _plain(mine[key]),
                f"its optimiser has {key} {group[key]!r}, and this run's {mine[key]!r}",
            )
    for number, parts in moments.items():
        _check(type(number) is int and 0 <= number < len(trained), f"its optimiser has moments of a weight {number!r}")
        _check(set(parts) == _MOMENTS, f"the moments of weight {number} are {', '.join(map(str, sorted(parts)))}")
        for name in ("exp_avg", "exp_avg_sq"):
            _check_tensor(parts[name], trained[number].detach(), f"{name} of weight {number}")
        _check(bool((parts["exp_avg_sq"] >= 0).all()), f"exp_avg_sq of weight {number} is below zero")
        taken = float(parts["step"])
        _check(0 < taken <= step and taken == int(taken), f"weight {number} took {taken:g} of {step} steps")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
