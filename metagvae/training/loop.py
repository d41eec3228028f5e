"""The one optimisation loop that pretraining and episodic training share.

A step is a pure function of (weights, optimiser state, seed, step): batches are drawn by number, noise comes
from generators seeded per step, the learning rate from a formula. So a state is all that a resumed run needs
to end bit-identical to one never stopped. On a CPU, that is: some CUDA kernels add in no fixed order, unless
``run.deterministic`` is set.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from episodes import InputError
from episodes.batch_share import Share
from episodes.counter_rng import seed_for
from metagvae.compute.device import Device, deterministic_algorithms, uncompiled
from metagvae.compute.processes import ranks
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.runs.run import Run, begun_precision
from metagvae.runs.signals import Interrupted, StopSignals
from metagvae.training.averaged_weights import AveragedWeights, copied
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


def captures(optim: OptimSection, device: Device) -> bool:
    """Whether steps are captured in a CUDA graph, as `optim.graph` has it.

    Raises:
        InputError: if they are to be captured where that cannot be.
    """
    able = device.device.type == "cuda" and ranks().size == 1
    if optim.graph == "on" and not able:
        raise InputError(
            f"optim.graph on captures steps of one process on a GPU; received the device {device.device} and "
            f"{ranks().size} process(es). Leave it at auto."
        )
    return able and optim.graph != "off"


@dataclass(frozen=True)
class Task:
    """A module to train, and where its steps come from.

    Args:
        module: its trainable parameters are fitted.
        draw: what a step is made of, given its number; nothing of it from torch's own generators.
        loss_terms: the named terms of a step, given what it is made of; called in the device's precision, with
            torch's generators seeded from (seed, step).
        place: what a step was made of, such as its episodes, for messages.
        share: of a step's items, what this process works on; ``loss_terms`` are means over it.
        label: of the progress bar.
        rates: factors of the learning rate by the beginning of weights' names; 1 where none fits.
    """

    module: nn.Module
    draw: Callable[[int], StepInputs]
    loss_terms: Callable[[StepInputs], dict[str, Tensor]]
    place: Callable[[int], str]
    share: Share
    label: str = "training"
    rates: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """How the weights to be kept are chosen.

    Args:
        error: in [0, 1]; the weights of the lowest are kept.
        every: steps between two of them.
        watch: told the step and the error after each; what it raises ends the run, resumably.
    """

    error: Callable[[], float]
    every: int
    watch: Callable[[int, float], None] | None = None


class _Fitting:
    """A loop's state between its steps, begun where the run's newest state left off."""

    def __init__(self, run: Run, task: Task, optim: OptimSection, device: Device) -> None:
        self.run, self.module, self.optim = run, task.module, optim
        self.work = TrainingStep(task.module, task.loss_terms, optim, task.share, device, task.place, rates=task.rates)
        self.guard = self.work.guard
        captured = captures(optim, device)
        self.take = CapturedStep(self.work, strict=optim.graph == "on") if captured else self.work
        self.average = None
        if optim.average:
            self.average = AveragedWeights(task.module, optim.average, int(optim.average_from * optim.steps))
        self.done, spent, skipped = 0, 0.0, 0
        self.best: dict[str, Any] = {"best_error": math.inf, "best_step": -1, "best": {}}
        peers = ranks()
        peers.check_layers(self.module)
        state = peers.from_main(run.states.load())
        if state is not None:
            place = run.states.path(state["step"])
            restore(self.module, self.work.optimizer, state, optim.steps, place, self.average)
            self.done, spent, skipped, self.best = state["step"], state["seconds"], state["skipped"], state["best"]
        elif peers.size > 1:
            self.module.load_state_dict(peers.from_main(self.module.state_dict()))  # whatever this host's files said
        run.start_metrics(self.done)
        self.guard.go_on(skipped)
        self.began = time.perf_counter() - spent

    def log(self, terms: dict[str, Tensor], rate: float) -> float:
        """Writes a line of metrics; gives the loss."""
        seen = torch.stack([term.detach().float() for term in terms.values()]).cpu()  # read back at once
        values = dict(zip(terms, seen.tolist(), strict=True))
        if self.optim.skip_nonfinite:
            values["skipped_steps"] = self.guard.skipped
        loss = float(seen.sum())
        self.run.log(self.done, {"loss": loss, **values, "lr": rate, "seconds": time.perf_counter() - self.began})
        return loss

    def take_in(self) -> None:
        """Adds the weights as they are to their mean, where one is kept."""
        if self.average is not None:
            self.average.add(self.done - 1)

    def to_keep(self) -> AbstractContextManager[None]:
        """Within it the module has the weights that a run is kept for: their mean, or they as they are."""
        return nullcontext() if self.average is None else self.average.in_place()

    def select(self, selection: Selection) -> None:
        """Measures the weights to keep, and keeps them if they are the best so far."""
        with self.to_keep(), uncompiled() if self.optim.compile else nullcontext():
            error = selection.error()
            if error < self.best["best_error"]:
                self.best = {"best_error": error, "best_step": self.done, "best": copied(self.module)}
        self.module.train()
        self.run.log(self.done, {"validation_error": error})
        if selection.watch is not None:
            selection.watch(self.done, error)

    def save(self) -> None:
        """Writes a state to go on from."""
        self.guard.check()
        check_finite_state(self.module, self.done)
        content = {"module": self.module.state_dict(), "optimizer": self.work.optimizer_state(), "best": self.best}
        if self.average is not None:
            content["average"] = self.average.state()
        seconds = time.perf_counter() - self.began
        self.run.states.save(self.done, {**content, "skipped": self.guard.skipped, "seconds": seconds})

    def outcome(self) -> dict[str, Any]:
        """The best weights, those of the end where none were chosen."""
        if not self.best["best"]:
            with self.to_keep():
                self.best = {**self.best, "best_step": self.done, "best": copied(self.module)}
        return {"step": self.done, **self.best}


def fit(
    run: Run, task: Task, optim: OptimSection, section: RunSection, device: Device, selection: Selection | None = None
) -> dict[str, Any]:
    """Minimises the sum of the task's loss terms over its module's trainable parameters.

    Returns:
        ``{"step", "best_error", "best_step", "best"}``; ``best`` is a state dict, of the end without a selection.

    Raises:
        Interrupted: after Ctrl-C, SIGTERM or ``run.stop_after``, the state written.
        InputError: if more steps than allowed have a loss or gradient that is not finite, or a state cannot be
            written; the states before stay.
    """
    fitting = _Fitting(run, task, optim, device)
    hidden = None if ranks().main else True
    bar = tqdm(total=optim.steps, initial=fitting.done, desc=task.label, unit="step", disable=hidden, leave=False)
    with bar, StopSignals() as stop, deterministic_algorithms(section.deterministic):
        for step in range(fitting.done, optim.steps):
            rate = learning_rate(optim, step)
            terms = fitting.take(task.draw(step), step, rate, seed_for(section.seed, 1, step))
            done = fitting.done = step + 1
            fitting.take_in()
            bar.update()
            last = done == optim.steps
            logging = done % section.log_every == 0 or last
            selecting = selection is not None and (done % selection.every == 0 or last)
            if logging or selecting:
                fitting.guard.check()
            if logging:
                bar.set_postfix(loss=f"{fitting.log(terms, rate):.4g}")
            if selection is not None and selecting:
                fitting.select(selection)
            halt = ranks().any(stop.asked) or section.stop_after == done
            if halt or last or done % section.save_every == 0:
                fitting.save()
            if halt and not last:
                raise Interrupted(
                    f"stopped after step {done} of {optim.steps}; the state is in {run.states.path(done)}. To go on, "
                    "give the same command with --run.resume auto."
                )
    return fitting.outcome()
