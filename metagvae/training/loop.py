"""The one optimisation loop that pretraining and episodic training share.

A step is a pure function of (weights, optimiser state, seed, step): batches are drawn by number, noise comes
from generators seeded per step, the learning rate from a formula. So a state is all that a resumed run needs
to end bit-identical to one never stopped. On a CPU, that is: some CUDA kernels add in no fixed order, unless
``run.deterministic`` is set.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from episodes import InputError
from episodes.batch_share import Share
from episodes.counter_rng import seed_for
from metagvae.compute.device import Device, deterministic_algorithms
from metagvae.compute.processes import ranks
from metagvae.config.sections import OptimSection, RunSection
from metagvae.runs.run import Run, begun_precision
from metagvae.runs.signals import Interrupted, StopSignals
from metagvae.training.captured_step import CapturedStep
from metagvae.training.finite_guard import check_finite_state
from metagvae.training.resumption import restore
from metagvae.training.step import StepInputs, TrainingStep


def learning_rate(optim: OptimSection, step: int) -> float:
    """The rate at ``step`` (from 0)."""
    if optim.schedule == "cosine":
        return optim.lr * 0.5 * (1 + math.cos(math.pi * step / optim.steps))
    if optim.schedule == "halving":
        return optim.lr * 0.5 ** (step // optim.halve_every)
    return optim.lr


def run_device(section: RunSection, optim: OptimSection, exact: bool = False) -> Device:
    """Where and in what precision a run computes: the same at each of its launches, and on each rank.

    ``auto`` may be settled by timing the processor, and a busy one could answer otherwise the next time.

    Args:
        exact: let ``auto`` be float32 for a new run, whatever the device is fast at.
    """
    precision = begun_precision(section.folder, section.resume, optim.precision)
    device = Device.choose(section.device, "float32" if exact and precision == "auto" else precision)
    return replace(device, autocast=ranks().from_main(device.autocast))


def _taken(work: TrainingStep, optim: OptimSection, device: Device) -> TrainingStep | CapturedStep:
    """The step as `optim.graph` has it: by itself, or captured.

    Raises:
        InputError: if it is to be captured where that cannot be.
    """
    able = device.device.type == "cuda" and ranks().size == 1 and not optim.compile
    if optim.graph == "on" and not able:
        raise InputError(
            "optim.graph on captures steps of one process on a GPU, without optim.compile; received the device "
            f"{device.device}, {ranks().size} process(es) and compile {optim.compile}. Leave it at auto."
        )
    return CapturedStep(work, strict=optim.graph == "on") if able and optim.graph != "off" else work


def fit(
    run: Run,
    module: nn.Module,
    draw: Callable[[int], StepInputs],
    loss_terms: Callable[[StepInputs], dict[str, Tensor]],
    optim: OptimSection,
    section: RunSection,
    device: Device,
    place: Callable[[int], str],
    share: Share,
    validate: Callable[[], float] | None = None,
    validate_every: int = 0,
    label: str = "training",
    watch: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Minimises the sum of ``loss_terms(step)`` over the module's trainable parameters.

    Args:
        draw: what a step is made of, given its number; nothing of it from torch's own generators.
        loss_terms: the named terms of a step, given what it is made of; called in the device's precision, with
            torch's generators seeded from (seed, step).
        place: what a step was made of, such as its episodes, for messages.
        share: of a step's items, what this process works on; ``loss_terms`` are means over it.
        validate: an error in [0, 1]; the weights of the lowest are kept.
        watch: told the step and the error after each validation; what it raises ends the run, resumably.

    Returns:
        ``{"step", "best_error", "best_step", "best"}``; ``best`` is a state dict, of the end without validation.

    Raises:
        Interrupted: after Ctrl-C, SIGTERM or ``run.stop_after``, the state written.
        InputError: if more steps than allowed have a loss or gradient that is not finite, or a state cannot be
            written; the states before stay.
    """
    work = TrainingStep(module, loss_terms, optim, share, device, place)
    guard = work.guard
    take = _taken(work, optim, device)
    start, spent, skipped = 0, 0.0, 0
    best: dict[str, Any] = {"best_error": math.inf, "best_step": -1, "best": {}}
    peers = ranks()
    peers.check_layers(module)
    state = peers.from_main(run.states.load())
    if state is not None:
        restore(module, work.optimizer, state, optim.steps, run.states.path(state["step"]))
        start, spent, skipped, best = state["step"], state["seconds"], state["skipped"], state["best"]
    elif peers.size > 1:
        module.load_state_dict(peers.from_main(module.state_dict()))  # whatever its files said on this host
    run.start_metrics(start)
    guard.go_on(skipped)

    def save(step: int) -> None:
        guard.check()
        check_finite_state(module, step)
        content = {"module": module.state_dict(), "optimizer": work.optimizer_state(), "best": best}
        run.states.save(step, {**content, "skipped": guard.skipped, "seconds": time.perf_counter() - began})

    done, began = start, time.perf_counter() - spent
    hidden = None if peers.main else True
    progress = tqdm(total=optim.steps, initial=start, desc=label, unit="step", disable=hidden, leave=False)
    with progress, StopSignals() as stop, deterministic_algorithms(section.deterministic):
        for step in range(start, optim.steps):
            rate = learning_rate(optim, step)
            terms = take(draw(step), step, rate, seed_for(section.seed, 1, step))
            done = step + 1
            progress.update()
            last = done == optim.steps
            logging = done % section.log_every == 0 or last
            validating = validate is not None and validate_every and (done % validate_every == 0 or last)
            if logging or validating:
                guard.check()
            if logging:
                seen = torch.stack([term.detach().float() for term in terms.values()]).cpu()  # read back at once
                values = dict(zip(terms, seen.tolist(), strict=True))
                if optim.skip_nonfinite:
                    values["skipped_steps"] = guard.skipped
                seconds = time.perf_counter() - began
                loss = float(seen.sum())
                run.log(done, {"loss": loss, **values, "lr": rate, "seconds": seconds})
                progress.set_postfix(loss=f"{loss:.4g}")
            if validating:
                assert validate is not None
                error = validate()
                run.log(done, {"validation_error": error})
                if error < best["best_error"]:
                    kept = {key: value.detach().clone() for key, value in module.state_dict().items()}
                    best = {"best_error": error, "best_step": done, "best": kept}
                if watch is not None:
                    watch(done, error)
            halt = peers.any(stop.asked) or section.stop_after == done
            if halt or last or done % section.save_every == 0:
                save(done)
            if halt and not last:
                raise Interrupted(
                    f"stopped after step {done} of {optim.steps}; the state is in {run.states.path(done)}. To go on, "
                    "give the same command with --run.resume auto."
                )
    if not best["best"]:
        best = {**best, "best_step": done, "best": module.state_dict()}
    return {"step": done, **best}
