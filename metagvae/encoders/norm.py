"""Normalisation whose behaviour on query pictures is a named policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError
from episodes.batch_share import held
from metagvae.compute.batch_statistics import batch_moments
from metagvae.encoders.native_batch_norm import batch_norm_shared, batch_norm_twice
from metagvae.encoders.twice_differentiable import batch_norm, batch_norm_by_lead

POLICIES = ("running", "group", "support", "transductive")


def full_precision(x: Tensor) -> Tensor:
    """float32 of half-precision numbers; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class Norm2d(nn.Module):
    """Normalises feature maps ``[B, C, H, W]`` per channel, then scales and shifts.

    Policies, by where the statistics come from:

    - ``running``: batch statistics in training, running averages in evaluation (Ioffe & Szegedy 2015).
    - ``group``: each picture by itself, in groups of channels (Wu & He, GroupNorm, ECCV 2018).
    - ``support``: per task, from the support pictures only, in training and evaluation.
    - ``transductive``: per task, from all of the task's pictures in the forward pass, queries too.

    All but the last are inductive: in evaluation a query's output does not depend on other queries. The
    last two read which rows belong to which task from `task_rows`.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, policy: str = "running", momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        if policy not in POLICIES:
            raise InputError(f"unknown norm policy {policy!r}; allowed: {', '.join(POLICIES)}.")
        self.policy, self.momentum, self.eps = policy, momentum, eps
        self.groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        if policy == "running":
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))
        # (tasks, leading rows of each task that give the statistics; None for all)
        self.rows: tuple[int, int | None] = (1, None)
        self.fused = self.twice = False

    def forward(self, x: Tensor) -> Tensor:
        if self.policy == "running":
            mean, var = self.running_mean, self.running_var  # torch.export of 2.4 does not follow get_buffer
            if self.training and not held().whole:
                return self._over_whole_batch(x, mean, var)
            return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, self.momentum, self.eps)
        if self.policy == "group":
            return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)
        tasks, lead = self.rows
        if self.fused and tasks == 1 and lead in (None, len(x)):
            if self.twice:
                return batch_norm_twice(full_precision(x), self.weight, self.bias, self.eps).to(x.dtype)
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        if self.twice and tasks == 1 and lead in (None, len(x)):
            return batch_norm(full_precision(x), self.weight, self.bias, self.eps).to(x.dtype)
        if self.twice and tasks == 1 and lead and self.policy == "support":
            return batch_norm_by_lead(full_precision(x), self.weight, self.bias, self.eps, lead).to(x.dtype)
        per_task = x.reshape(tasks, -1, *x.shape[1:])
        source = per_task[:, :lead] if self.policy == "support" else per_task
        # bfloat16 has too few digits for a variance
        var, mean = torch.var_mean(full_precision(source), dim=(1, 3, 4), correction=0, keepdim=True)
        scale = (var + self.eps).rsqrt() * self.weight[:, None, None]
        shift = self.bias[:, None, None] - mean * scale
        return (per_task * scale.to(x.dtype) + shift.to(x.dtype)).reshape(x.shape)

    def _over_whole_batch(self, x: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
        """Batch normalisation with the statistics of a batch of which ``x`` is this process's part."""
        mean, var, count = batch_moments(x)
        with torch.no_grad():
            running_mean.lerp_(mean, self.momentum)
            running_var.lerp_(var * (count / max(count - 1, 1)), self.momentum)
        return batch_norm_shared(x, self.weight, self.bias, mean, var, count, self.eps)


@contextmanager
def task_rows(
    module: nn.Module, tasks: int, lead: int | None, fused: bool = False, twice: bool = False
) -> Iterator[None]:
    """Within it, a batch given to ``module`` is ``tasks`` equal runs of rows, the first ``lead`` of each support.

    Args:
        fused: let torch's own kernels of batch norm do what they can. Not under vmap, whose rule for them gives wrong
            second derivatives where there are affine weights.
        twice: a gradient of a gradient will be asked for: take the layer whose second derivatives are written out,
            `metagvae.encoders.native_batch_norm` if ``fused``, else `metagvae.encoders.twice_differentiable`.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, Norm2d)]
    before = [(layer.rows, layer.fused, layer.twice) for layer in layers]
    for layer in layers:
        layer.rows, layer.fused, layer.twice = (tasks, lead), fused, twice
    try:
        yield
    finally:
        for layer, state in zip(layers, before, strict=True):
            layer.rows, layer.fused, layer.twice = state


def norm_policy(module: nn.Module) -> str:
    """The policy of the module's first `Norm2d`; ``running`` for torch's batch normalisation; else ``none``."""
    layers = list(module.modules())
    plain = "running" if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in layers) else "none"
    return next((layer.policy for layer in layers if isinstance(layer, Norm2d)), plain)
