"""The one optimisation loop that pretraining and episodic training share.

A step is a pure function of (weights, optimiser state, seed, step): batches are drawn by number, noise comes
from generators seeded per step, the learning rate from a formula. So a state is all that a resumed run needs
to end bit-identical to one never stopped. On a CPU, that is: some CUDA kernels add in no fixed order.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from episodes import InputError
from episodes.rng import seed_for
from metagvae.config import OptimSection, RunSection
from metagvae.device import Device
from metagvae.runs import Run


class Interrupted(Exception):
    """The run was asked to stop and wrote its state."""


def learning_rate(optim: OptimSection, step: int) -> float:
    """The rate at ``step`` (from 0)."""
    if optim.schedule == "cosine":
        return optim.lr * 0.5 * (1 + math.cos(math.pi * step / optim.steps))
    if optim.schedule == "halving":
        return optim.lr * 0.5 ** (step // optim.halve_every)
    return optim.lr


class _StopSignals:
    """Turns the first Ctrl-C or SIGTERM into a flag; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this step; once more stops at once", file=sys.stderr)

    def __enter__(self) -> _StopSignals:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        except ValueError:  # not the main thread: the caller owns the signals
            pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def fit(
    run: Run,
    module: nn.Module,
    loss_terms: Callable[[int], dict[str, Tensor]],
    optim: OptimSection,
    section: RunSection,
    device: Device,
    validate: Callable[[], float] | None = None,
    validate_every: int = 0,
    label: str = "training",
) -> dict[str, Any]:
    """Minimises the sum of ``loss_terms(step)`` over the module's trainable parameters.

    Args:
        loss_terms: the named terms of a step, given its number; called in the device's precision, with
            torch's generators seeded from (seed, step).
        validate: an error in [0, 1]; the weights of the lowest are kept.

    Returns:
        ``{"step", "best_error", "best_step", "best"}``; ``best`` is a state dict, of the end without validation.

    Raises:
        Interrupted: after Ctrl-C, SIGTERM or ``run.stop_after``, the state written.
        InputError: if a loss is not finite; the last written state stays.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise InputError("nothing to train: every weight is frozen; choose another mode or learner.")
    fused = device.device.type == "cuda"
    optimizer = torch.optim.AdamW(trainable, lr=optim.lr, weight_decay=optim.weight_decay, fused=fused)
    start, spent = 0, 0.0
    best: dict[str, Any] = {"best_error": math.inf, "best_step": -1, "best": {}}
    state = run.load_state(device.device) if section.resume else None
    if state is not None:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
        best = state["best"]
        spent = state["seconds"]
    run.start_metrics(start)

    def save(step: int) -> None:
        if not all(bool(torch.isfinite(p.detach()).all()) for p in trainable):
            raise InputError(
                f"a weight is not finite after step {step}; the last state in {run.folder} is from before. Lower "
                "optim.lr, set optim.clip, or use optim.precision float32."
            )
        content = {"step": step, "module": module.state_dict(), "optimizer": optimizer.state_dict(), "best": best}
        run.save_state({**content, "seconds": time.perf_counter() - began})

    done, began = start, time.perf_counter() - spent
    progress = tqdm(total=optim.steps, initial=start, desc=label, unit="step", disable=None, leave=False)
    try:
        with _StopSignals() as stop:
            for step in range(start, optim.steps):
                rate = learning_rate(optim, step)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                torch.manual_seed(seed_for(section.seed, 1, step))
                with device.precision():
                    terms = loss_terms(step)
                loss = torch.stack([term.float() for term in terms.values()]).sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if optim.clip:
                    torch.nn.utils.clip_grad_norm_(trainable, optim.clip)
                logging = (step + 1) % section.log_every == 0 or step + 1 == optim.steps
                saving = (step + 1) % section.save_every == 0
                # on an accelerator the check waits for the device, so there it is made before each write only
                if logging or saving or device.device.type == "cpu":
                    _check_finite(terms, step, run)
                optimizer.step()
                done = step + 1
                progress.update()
                if logging:
                    seconds = time.perf_counter() - began
                    values = {name: float(term.detach()) for name, term in terms.items()}
                    run.log(done, {"loss": float(loss.detach()), **values, "lr": rate, "seconds": seconds})
                    progress.set_postfix(loss=f"{float(loss.detach()):.4g}")
                if validate and validate_every and (done % validate_every == 0 or done == optim.steps):
                    error = validate()
                    run.log(done, {"validation_error": error})
                    if error < best["best_error"]:
                        kept = {key: value.detach().clone() for key, value in module.state_dict().items()}
                        best = {"best_error": error, "best_step": done, "best": kept}
                halt = stop.asked or section.stop_after == done
                if saving or halt or done == optim.steps:
                    save(done)
                if halt and done < optim.steps:
                    raise Interrupted(
                        f"stopped after step {done} of {optim.steps}; the state is in {run.state_file}. Give the "
                        "same command with --run.resume true to go on."
                    )
    finally:
        progress.close()
        run.close()
    if not best["best"]:
        best = {**best, "best_step": done, "best": module.state_dict()}
    return {"step": done, **best}


def _check_finite(terms: dict[str, Tensor], step: int, run: Run) -> None:
    broken = [name for name, term in terms.items() if not bool(torch.isfinite(term.detach()))]
    if broken:
        raise InputError(
            f"the loss is not finite at step {step}: {', '.join(broken)}. The last state in {run.folder} is from "
            "before; lower optim.lr, set optim.clip, or use optim.precision float32."
        )
