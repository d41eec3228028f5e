"""An outer gradient taken for a few tasks at a time, so that the graphs of all never exist together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from episodes import EpisodeBatch

Objective = Callable[[EpisodeBatch], tuple[Tensor, Tensor]]


@dataclass
class GradientPart:
    """Some tasks' part of the loss, its gradients in the order of the weights, their logits."""

    loss: Tensor
    slopes: list[Tensor | None]
    logits: Tensor


def gradient_part(
    objective: Objective, weights: Sequence[Tensor], batch: EpisodeBatch, share: tuple[int, int], chunk: int
) -> GradientPart:
    """The part of the mean loss of a share of the tasks, and its gradient, the graphs of ``chunk`` tasks at a time.

    Args:
        objective: mean loss and logits of a batch.
        share: (number, of): the ``number``-th of ``of`` even shares.
    """
    number, of = share
    first, last = batch.tasks * number // of, batch.tasks * (number + 1) // of
    sums: list[Tensor | None] = [None] * len(weights)
    total, logits = batch.images.new_zeros(()), []
    for start in range(first, last, chunk):
        part = batch.tasks_from(start, min(chunk, last - start))
        loss, said = objective(part)
        loss = loss * (part.tasks / batch.tasks)
        for place, slope in enumerate(torch.autograd.grad(loss, weights, allow_unused=True)):
            before = sums[place]
            if slope is not None:  # a weight may have no part in some tasks
                sums[place] = slope if before is None else before.add_(slope)
        total = total + loss.detach()
        logits.append(said.detach())
    return GradientPart(total, sums, torch.cat(logits))


def joined_parts(parts: Sequence[GradientPart], weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The whole loss, which gives the parts' gradients when it is differentiated, and the logits, which carry none."""
    pairs = []
    for place, weight in enumerate(weights):
        slopes = [slope for part in parts if (slope := part.slopes[place]) is not None]
        if slopes:
            pairs.append((weight, torch.stack(slopes).sum(0) if len(slopes) > 1 else slopes[0]))
    total = torch.stack([part.loss for part in parts]).sum()
    logits = torch.cat([part.logits for part in parts])
    return _WithGradients.apply(total, *(s for _, s in pairs), *(w for w, _ in pairs)), logits


class _WithGradients(torch.autograd.Function):
    """A loss whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *slopes_and_weights: Tensor) -> Tensor:
        ctx.slopes = slopes_and_weights[: len(slopes_and_weights) // 2]
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        slopes = ctx.slopes
        return None, *(None for _ in slopes), *(outer[0].to(slope.dtype) * slope for slope in slopes)
