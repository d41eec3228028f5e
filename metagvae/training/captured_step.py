"""A training step captured once as a CUDA graph and replayed: one launch instead of some hundred kernels' launches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from episodes import InputError
from metagvae.training.step import StepInputs, TrainingStep

WARM = 3  # steps before the capture: libraries choose their kernels, the optimiser makes its state

Terms = dict[str, Tensor]


class Recording(Protocol):
    """Work of a device, recorded as the kernels it comes to, on the memory that it used."""

    def warm(self, work: Callable[[], Terms]) -> Terms:
        """Does the work without recording it."""

    def record(self, work: Callable[[], Terms]) -> Terms:
        """Records the work and does none of it; gives the tensors that each replay writes."""

    def replay(self) -> None:
        """Does the work."""


class CudaGraph:
    """The `Recording` that a GPU keeps itself."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.aside = torch.cuda.Stream()

    def warm(self, work: Callable[[], Terms]) -> Terms:
        # as torch asks for: what is made on the default stream cannot be part of a capture
        here = torch.cuda.current_stream()
        self.aside.wait_stream(here)
        with torch.cuda.stream(self.aside):
            terms = work()
        here.wait_stream(self.aside)
        return terms

    def record(self, work: Callable[[], Terms]) -> Terms:
        here = torch.cuda.current_stream()
        try:
            # of this thread alone: others may pin memory for the next steps meanwhile
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                return work()
        except RuntimeError:
            # what a capture leaves behind that broke off: its stream, and a generator that thinks itself recorded
            torch.cuda.set_stream(here)
            torch.cuda.synchronize()
            generator = torch.cuda.default_generators[here.device.index]
            generator.graphsafe_set_state(torch.Generator(here.device).graphsafe_get_state())
            raise

    def replay(self) -> None:
        self.graph.replay()


class CapturedStep:
    """A `TrainingStep` that takes its first steps eagerly and replays a recording for all others.

    Same terms, same order of draws: the generators are seeded for each step before it is replayed, and whatever
    changes from step to step (inputs, rate, number) is copied into the memory that the recording reads.

    Args:
        recording: where to record; a CUDA graph if None.
        strict: make it an error if the step cannot be captured; else it is said once, and every step is taken eagerly.
    """

    def __init__(self, step: TrainingStep, recording: Recording | None = None, strict: bool = True) -> None:
        self.step, self.strict = step, strict
        self.recording = recording or CudaGraph()
        self._eager = False
        self._inputs: dict[str, Tensor] = {}
        self._terms: Terms = {}
        self._taken = 0

    def __call__(self, inputs: StepInputs, number: int, rate: float, seed: int) -> Terms:
        """As `TrainingStep`.

        Raises:
            InputError: if the step cannot be captured.
        """
        self._hold(inputs)
        self.step.begin(number, rate, seed)
        if self._taken < WARM:
            self._taken += 1
            return self.recording.warm(self._run)
        if not self._terms and not self._eager:
            self._capture()
            torch.manual_seed(seed)
        if self._eager:
            return self._run()
        self.recording.replay()
        # a copy: the next replay writes over them
        return dict(zip(self._terms, torch.stack(list(self._terms.values())).unbind(), strict=True))

    def _hold(self, inputs: StepInputs) -> None:
        """Copies what the step is made of to where the recording reads it."""
        device = self.step.device.device
        for name, value in inputs.items():
            if name not in self._inputs:
                as_tensor = value.clone() if isinstance(value, Tensor) else torch.full((), value, device=device)
                self._inputs[name] = as_tensor
            elif isinstance(value, Tensor):
                self._inputs[name].copy_(value)
            else:
                self._inputs[name].fill_(value)

    def _run(self) -> Terms:
        return self.step.run(dict(self._inputs))

    def _capture(self) -> None:
        try:
            self._terms = self.recording.record(self._run)
        except RuntimeError as error:
            what = f"this training step cannot be captured in a CUDA graph ({str(error).splitlines()[0]})"
            if self.strict:
                raise InputError(f"{what}; a part of it waits for the host. Set optim.graph to off.") from error
            print(f"{what}; its steps are taken one kernel at a time", file=sys.stderr)
            self._eager = True
