"""Base of learners that adapt by gradient steps: a head of fixed ways, and an inner loop's options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from episodes import InputError
from metagvae.learners.base import Learner

MAX_STEPS = 1000
RATES = ("fixed", "learnt")
HEADS = ("learnt", "zero")


@dataclass(frozen=True)
class InnerLoop:
    """Options of an inner loop; the last six change MAML's unsteady training.

    ``second_order_from``, ``rates`` and ``every_loss_until`` are of Antoniou, Edwards & Storkey (How to train your
    MAML, ICLR 2019, section 4), ``head`` of Kao, Chiu & Chen (MAML is a noisy contrastive learner in classification,
    ICLR 2022). A share of the training is in [0, 1] and read against `Learner.progress`.

    Args:
        inner_lr: alpha, the step size of the inner loop; with learnt rates, where they begin.
        inner_steps: inner gradient steps in training.
        eval_inner_steps: inner gradient steps in evaluation; None for as many as in training.
        first_order: take the inner gradients as constants in the outer gradient.
        second_order_from: first order before this share of the training, second order from there on.
        rates: ``fixed`` at ``inner_lr``, or ``learnt`` by the outer loop, one for each inner step and tensor of
            weights; steps past those of training take the last one's.
        every_loss_until: the share of the training until which the queries' loss after every inner step counts: at
            first all alike, the earlier ones then less and less.
        head_lr: alpha of the linear layer for each way, in a learner that steps the encoder too: with N ways it is N
            times this, so that a row moves as far in episodes of few ways as of many; None for ``inner_lr``.
        head: the linear layer's start: ``learnt`` by the outer loop, or ``zero`` in every episode, so that a row of
            it belongs to no class before the support set is seen, and there may be any number of them.
        normalise: in [0, 1]: the head sees each feature z as z / |z|^normalise, as in `PrototypicalNetwork`; after one
            step from zero its logits are then cosines at 1.

    Raises:
        InputError: by `check`, if an option is out of its range.

    Example:
        >>> from metagvae.learners.inner_loop import InnerLoop
        >>> InnerLoop(inner_lr=0.1, inner_steps=5, rates="learnt").check("maml")
    """

    inner_lr: float
    inner_steps: int
    eval_inner_steps: int | None = None
    first_order: bool = False
    second_order_from: float = 0.0
    rates: str = "fixed"
    every_loss_until: float = 0.0
    head: str = "learnt"
    head_lr: float | None = None
    normalise: float = 0.0

    def check(self, name: str) -> None:
        """Raises `InputError`, as the learner ``name``, for an option out of its range."""
        for option, rate in (("inner_lr", self.inner_lr), ("head_lr", self.head_lr)):
            if rate is not None and not rate > 0:
                raise InputError(f"{name}'s {option} must be positive; received {rate}.")
        for option, steps in (("inner_steps", self.inner_steps), ("eval_inner_steps", self.eval_inner_steps)):
            if steps is not None and not 1 <= steps <= MAX_STEPS:
                raise InputError(f"{name}'s {option} must be from 1 to {MAX_STEPS:,}; received {steps}.")
        shares = (("second_order_from", self.second_order_from), ("every_loss_until", self.every_loss_until))
        for option, share in shares:
            if not 0 <= share <= 1:
                raise InputError(f"{name}'s {option} is a share of the training, from 0 to 1; received {share}.")
        if not 0 <= self.normalise <= 1:
            raise InputError(f"{name}'s normalise must be in [0, 1]; received {self.normalise}.")
        for option, value, allowed in (("rates", self.rates, RATES), ("head", self.head, HEADS)):
            if value not in allowed:
                raise InputError(f"{name}'s {option} must be one of {', '.join(allowed)}; received {value!r}.")
        if self.first_order and self.second_order_from:
            raise InputError(
                f"{name} with first_order takes no second derivatives, and second_order_from {self.second_order_from} "
                "asks for them later; leave one of the two out."
            )


class InnerLoopLearner(Learner):
    """A linear head on the encoder's features, and an inner loop.

    Args:
        encoder: pictures to features; its ``feature_size`` is their length.
        way: outputs of the head; episodes must have this many ways, unless the head starts at zero.
        options: of the inner loop.

    Raises:
        InputError: if an option is out of its range or the encoder has no ``feature_size``.
    """

    any_way = False

    def __init__(self, encoder: nn.Module, way: int, options: InnerLoop) -> None:
        super().__init__(encoder)
        size = getattr(encoder, "feature_size", None)
        if not isinstance(size, int):
            raise InputError(
                f"{self.name} puts a linear head on the encoder's features and needs their number; "
                f"give {type(encoder).__name__} an integer attribute feature_size."
            )
        if way < 2:
            raise InputError(f"{self.name}'s way must be at least 2; received {way}.")
        options.check(self.name)
        self.options = options
        self.way = way if options.head == "learnt" else None
        self.head = nn.Linear(size, way)
        if options.head == "zero":
            self.head.requires_grad_(False)
            for weight in self.head.parameters():
                weight.zero_()
        self.rates: nn.Parameter | None = None
        if options.rates == "learnt":
            self.rates = nn.Parameter(torch.tensor([self._first_rates()] * options.inner_steps))

    @classmethod
    def answers_any_way(cls, options: Mapping[str, Any]) -> bool:
        return bool(options.get("head", "learnt") == "zero")

    def tensors(self) -> int:
        """How many tensors of weights the inner loop steps, each with a rate of its own."""
        return len([name for name, _ in self.named_parameters() if name != "rates"])

    @property
    def steps(self) -> int:
        """Inner steps in the present mode."""
        if self.training or self.options.eval_inner_steps is None:
            return self.options.inner_steps
        return self.options.eval_inner_steps

    def step_rates(self, step: int, way: int) -> Sequence[float | Tensor]:
        """The rates of inner step ``step`` (from 0), one for each tensor of weights."""
        rates: Sequence[float | Tensor] = self._first_rates()
        if self.rates is not None:
            rates = self.rates[min(step, len(self.rates) - 1)].unbind()
        if self.options.head_lr is None:
            return rates
        return [*rates[:-2], *(way * rate for rate in rates[-2:])]

    def _first_rates(self) -> list[float]:
        tensors, chosen = self.tensors(), self.options
        head = chosen.inner_lr if chosen.head_lr is None else chosen.head_lr
        return [*[chosen.inner_lr] * (tensors - 2), head, head]  # the head's weight and bias come last

    def loss_weights(self) -> Sequence[float | Tensor] | None:
        """How much the queries' loss after each inner step counts; None where the last alone does.

        With S steps, and p of the share ``every_loss_until`` behind, the earlier ones count (1 - p) / S each.
        """
        until, steps = self.options.every_loss_until, self.steps
        if not self.training or steps == 1 or not until:
            return None
        if isinstance(self.progress, Tensor):  # a captured step: no branch can depend on it
            share = (1 - self.progress / until).clamp(min=0) / steps
            return [*[share] * (steps - 1), 1 - (steps - 1) * share]
        early = (1 - self.progress / until) / steps
        return None if early <= 0 else [*[early] * (steps - 1), 1 - (steps - 1) * early]

    @property
    def second_order(self) -> bool:
        """Whether the outer gradient goes through the inner gradients."""
        if not torch.is_grad_enabled() or self.options.first_order:
            return False
        return isinstance(self.progress, Tensor) or self.progress >= self.options.second_order_from

    def inner_grad_mode(self) -> torch.set_grad_enabled:
        """Within it, inner gradients keep a graph only if the outer gradient goes through them."""
        return torch.set_grad_enabled(self.second_order)

    def counted(self, slope: Tensor) -> Tensor:
        """An inner gradient, whose own gradient counts from ``second_order_from`` on.

        A captured step takes the same operations at every progress: there the gradient is multiplied by 0 or 1.
        """
        start = self.options.second_order_from
        if not start or not isinstance(self.progress, Tensor) or not self.second_order:
            return slope
        still = slope.detach()
        return still + (self.progress >= start).to(slope.dtype) * (slope - still)

    def check_way(self, way: int) -> None:
        """Raises `InputError` unless episodes of ``way`` ways fit the head."""
        if self.way is not None and way != self.way:
            raise InputError(
                f"this {self.name} has a head of {self.way} ways; received episodes of {way}. "
                f"Ask for {self.way} ways, train one for {way} or one whose head starts at zero, or use a learner for "
                "any number of ways, such as prototypes."
            )

    def head_start(self, way: int) -> tuple[Tensor, Tensor]:
        """Weight ``[way, D]`` and bias ``[way]`` that the head begins an episode with."""
        self.check_way(way)
        if self.way is None:
            return self.head.weight[:1].expand(way, -1), self.head.bias[:1].expand(way)
        return self.head.weight, self.head.bias


def weighted_sum(weights: Sequence[float | Tensor], losses: Sequence[Tensor]) -> Tensor:
    """The sum of losses, each times its weight."""
    return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()
