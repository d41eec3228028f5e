"""One step of the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from episodes import InputError
from episodes.batch_share import Share, holding
from metagvae.compute.device import Device
from metagvae.compute.processes import ranks
from metagvae.config.optimisation import OptimSection
from metagvae.encoders import spectral_norm
from metagvae.training.finite_guard import FiniteGuard

# What a step is made of, by name: tensors of the same shape at every step, and numbers that change from step to step.
StepInputs = dict[str, Tensor | float]


def as_tensor(value: Tensor | float) -> Tensor:
    """One of `StepInputs` that is a tensor."""
    assert isinstance(value, Tensor)
    return value


def adam(groups: Mapping[float, list[nn.Parameter]], optim: OptimSection, fused: bool) -> torch.optim.AdamW:
    """The optimiser of a config; if fused, its rates are tensors, so that a captured step can follow a schedule.

    Args:
        groups: weights by what multiplies their learning rate.
    """
    device = next(iter(groups.values()))[0].device
    made = torch.optim.AdamW(
        [{"params": weights, "factor": factor} for factor, weights in groups.items()],
        lr=optim.lr,
        betas=(optim.betas[0], optim.betas[1]),
        weight_decay=optim.weight_decay,
        fused=fused or None,
        capturable=fused and device.type == "cuda",
    )
    for group in made.param_groups if fused else ():
        group["lr"] = torch.full((), optim.lr * group["factor"], device=device)  # later: the constructor reads it back
    return made


def by_rate(module: nn.Module, rates: Mapping[str, float]) -> dict[float, list[nn.Parameter]]:
    """The trainable weights of a module by what multiplies their learning rate.

    Args:
        rates: factors by the beginning of weights' names; 1 where none fits.
    """
    found: dict[float, list[nn.Parameter]] = {}
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            factor = next((rate for start, rate in rates.items() if name.startswith(start)), 1.0)
            found.setdefault(factor, []).append(weight)
    return found


class TrainingStep:
    """From what a step is made of to the new weights; on an accelerator the host waits for none of it.

    Args:
        module: what is trained.
        loss_terms: the named terms of a step, means over this process's share of it; called in the device's precision.
        optim: the optimiser's options.
        share: of a step's items, what this process works on.
        place: what a step (from 0) was made of, for messages.
        fused: let the optimiser be one kernel; None for where it is the faster, a GPU.
        rates: factors of the learning rate, as `by_rate` takes them.

    Raises:
        InputError: if no weight is trainable.
    """

    def __init__(
        self,
        module: nn.Module,
        loss_terms: Callable[[StepInputs], dict[str, Tensor]],
        optim: OptimSection,
        share: Share,
        device: Device,
        place: Callable[[int], str],
        fused: bool | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        groups = by_rate(module, rates or {})
        self.trainable = [weight for weights in groups.values() for weight in weights]
        if not self.trainable:
            raise InputError("nothing to train: every weight is frozen; choose another mode or learner.")
        self.module = module
        self.loss_terms, self.share, self.device, self.clip = loss_terms, share, device, optim.clip
        fused = device.device.type == "cuda" if fused is None else fused
        self.optimizer = adam(groups, optim, fused)
        self.guard = FiniteGuard(module, self.optimizer, optim.skip_nonfinite, place)

    def __call__(self, inputs: StepInputs, number: int, rate: float, seed: int) -> dict[str, Tensor]:
        """Takes step ``number`` (from 0) and gives the whole batch's loss terms.

        Args:
            rate: the learning rate, before any factor.
            seed: of torch's generators.
        """
        self.begin(number, rate, seed)
        return self.run(inputs)

    def optimizer_state(self) -> dict[str, Any]:
        """The optimiser's state for a file, in which the rate is a number."""
        state = self.optimizer.state_dict()
        return {**state, "param_groups": [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]}

    def begin(self, number: int, rate: float, seed: int) -> None:
        """The state that changes from step to step besides the inputs."""
        for group in self.optimizer.param_groups:
            own = rate * group["factor"]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(own)
            else:
                group["lr"] = own
        self.guard.begin(number)
        torch.manual_seed(seed)

    def run(self, inputs: StepInputs) -> dict[str, Tensor]:
        """The part of a step that the device does alone."""
        self.guard.before()
        spectral_norm.iterate(self.module)
        with holding(self.share), self.device.precision():
            terms = self.loss_terms(inputs)
        self.optimizer.zero_grad(set_to_none=True)
        values = torch.stack([term.float() for term in terms.values()])
        loss = values.sum()
        # all of several processes exchange sums in the backward pass
        if ranks().size > 1 or self.guard.worth_a_gradient(terms):
            (loss if self.share.whole else self.share.weight * loss).backward()
        reduced = ranks().reduce(self.trainable, dict(zip(terms, values.detach().unbind(), strict=True)), self.share)
        self.guard.step(reduced, self._norm())
        return reduced

    def _norm(self) -> Tensor:
        """The length of the whole gradient, before it is clipped."""
        if self.clip:
            return torch.nn.utils.clip_grad_norm_(self.trainable, self.clip)
        slopes = [weight.grad for weight in self.trainable if weight.grad is not None]
        if not slopes:
            return torch.zeros((), device=self.trainable[0].device)
        length: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(slopes)))
        return length
