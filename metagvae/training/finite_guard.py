"""Losses and gradients that are not finite: found at the step that made them, and kept out of the weights."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from episodes import InputError


class FiniteGuard:
    """Takes the optimiser's steps, but for those whose loss or gradient is not finite.

    A fused optimiser (on CUDA) is told on the device and leaves such a step out there; what happened is read back
    by `check` alone, so that no step waits for the device. Elsewhere each step is looked at as it is made.

    Args:
        module: its buffers, such as running averages, are put back after a step that is left out.
        optimizer: of its parameters.
        allowed: how many steps may be left out; one more stops the run.
        place: what a step (from 0) was made of, for the message.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        allowed: int,
        place: Callable[[int], str],
    ) -> None:
        self.optimizer, self.allowed, self.place = optimizer, allowed, place
        self.on_device = bool(optimizer.defaults.get("fused"))
        self._buffers = list(module.buffers()) if allowed else []
        self._kept: list[Tensor] = []
        device = next(module.parameters()).device
        # changed in place alone: a captured step finds them where they were
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        self._number = torch.zeros((), dtype=torch.int64, device=device)
        self._last = torch.full((), -1, device=device)
        self._broken = torch.zeros(0, dtype=torch.bool, device=device)
        self._names: list[str] = []
        self._told = 0

    def go_on(self, skipped: int) -> None:
        """Counts on from the steps that were left out before this launch."""
        self._count.fill_(skipped)
        self._told = skipped

    def begin(self, step: int) -> None:
        """The number of the step (from 0) that comes next."""
        self._number.fill_(step)

    def before(self) -> None:
        """To be called ahead of a step's forward pass."""
        self._kept = [buffer.clone() for buffer in self._buffers]

    def worth_a_gradient(self, terms: dict[str, Tensor]) -> bool:
        """Whether the loss is finite, so that its gradient is asked for; told on the device, that is not waited for."""
        return self.on_device or all(bool(torch.isfinite(term.detach()).all()) for term in terms.values())

    def step(self, terms: dict[str, Tensor], norm: Tensor) -> None:
        """The optimiser's step.

        Args:
            terms: of the loss, scalars.
            norm: of the whole gradient, before any clipping.

        Raises:
            InputError: as `check`, where each step is looked at.
        """
        self._names = [*terms, "gradient"]
        values = torch.stack([*(term.detach().float() for term in terms.values()), norm.detach().float()])
        broken = ~torch.isfinite(values)
        bad = broken.any()
        # the last one within the bound, or the one that broke it
        noted = bad & (self._count <= self.allowed)
        self._last.copy_(torch.where(noted, self._number, self._last))
        if not len(self._broken):
            self._broken = torch.zeros_like(broken)
        self._broken.copy_(torch.where(noted, broken, self._broken))
        self._count += bad
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            buffer.copy_(torch.where(bad, kept, buffer))
        if self.on_device:
            self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
            self.optimizer.step()
            return
        if not bad:
            self.optimizer.step()
        self.check()

    @property
    def skipped(self) -> int:
        """Steps left out so far; waits for the device."""
        return int(self._count)

    def check(self) -> None:
        """Tells of steps left out since the last call.

        Raises:
            InputError: if they are more than allowed.
        """
        count = self.skipped
        if count == self._told:
            return
        self._told = count
        step = int(self._last)
        broken = [name for name, flag in zip(self._names, self._broken.tolist(), strict=True) if flag]
        terms = [name for name in broken if name != "gradient"]
        what = f"the loss is not finite at step {step + 1} ({self.place(step)}): {', '.join(terms)}"
        if not terms:
            what = f"the gradient is not finite at step {step + 1} ({self.place(step)}), every term of the loss is"
        if count <= self.allowed:
            print(f"{what}; left out, {count} of {self.allowed} such steps allowed", file=sys.stderr)
            return
        bound = f" optim.skip_nonfinite allows {self.allowed} such steps." if self.allowed else ""
        raise InputError(
            f"{what}.{bound} The last state is from before; lower optim.lr, set optim.clip, use optim.precision "
            "float32, or have such steps left out (optim.skip_nonfinite)."
        )


def check_finite_state(module: nn.Module, step: int) -> None:
    """Raises `InputError` if a weight or buffer is not finite after ``step`` steps, naming it."""
    for name, value in module.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(
                f"{name} is not finite after step {step}, and no state was written with it. Lower optim.lr, set "
                "optim.clip, or use optim.precision float32."
            )
