"""Base of learners that adapt by gradient steps: a head of fixed ways, and an inner loop's options."""

from __future__ import annotations

import torch
from torch import nn

from episodes import InputError
from metagvae.learners.base import Learner

MAX_STEPS = 1000


class InnerLoopLearner(Learner):
    """A linear head of ``way`` outputs on the encoder's features, and the options of an inner loop.

    Args:
        encoder: pictures to features; its ``feature_size`` is their length.
        way: outputs of the head; episodes must have this many ways.
        inner_lr: alpha, the step size of the inner loop.
        inner_steps: inner gradient steps in training.
        eval_inner_steps: inner gradient steps in evaluation; None for as many as in training.
        first_order: take the inner gradients as constants in the outer gradient.

    Raises:
        InputError: if an option is out of its range or the encoder has no ``feature_size``.
    """

    any_way = False

    def __init__(
        self,
        encoder: nn.Module,
        way: int,
        inner_lr: float,
        inner_steps: int,
        eval_inner_steps: int | None,
        first_order: bool,
    ) -> None:
        super().__init__(encoder)
        size = getattr(encoder, "feature_size", None)
        if not isinstance(size, int):
            raise InputError(
                f"{self.name} puts a linear head on the encoder's features and needs their number; "
                f"give {type(encoder).__name__} an integer attribute feature_size."
            )
        if way < 2:
            raise InputError(f"{self.name}'s way must be at least 2; received {way}.")
        if not inner_lr > 0:
            raise InputError(f"{self.name}'s inner_lr must be positive; received {inner_lr}.")
        for option, value in (("inner_steps", inner_steps), ("eval_inner_steps", eval_inner_steps)):
            if value is not None and not 1 <= value <= MAX_STEPS:
                raise InputError(f"{self.name}'s {option} must be from 1 to {MAX_STEPS:,}; received {value}.")
        self.inner_lr, self.first_order = inner_lr, first_order
        self.inner_steps, self.eval_inner_steps = inner_steps, eval_inner_steps
        self.way = way
        self.head = nn.Linear(size, way)

    @property
    def steps(self) -> int:
        """Inner steps in the present mode."""
        if self.training or self.eval_inner_steps is None:
            return self.inner_steps
        return self.eval_inner_steps

    def inner_grad_mode(self) -> torch.set_grad_enabled:
        """Within it, inner gradients keep a graph only if the outer gradient goes through them."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.first_order)

    def check_way(self, way: int) -> None:
        """Raises `InputError` unless episodes of ``way`` ways fit the head."""
        if way != self.head.out_features:
            raise InputError(
                f"this {self.name} has a head of {self.head.out_features} ways; received episodes of {way}. "
                f"Ask for {self.head.out_features} ways, train one for {way}, or use a learner for any "
                "number of ways, such as prototypes."
            )
