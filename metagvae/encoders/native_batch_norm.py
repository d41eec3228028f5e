"""Batch normalisation out of torch's own fused kernels, where torch.nn's layer does too little or too much.

`torch.nn.functional.batch_norm` knows the statistics of one process, and its second derivatives are some forty small
kernels. Both are had from the kernels of its first derivatives. The notation is that of
`metagvae.encoders.twice_differentiable`, which is for `torch.func.vmap`; these are not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metagvae.compute.processes import ranks

_forward = torch.ops.aten.native_batch_norm
_backward = torch.ops.aten.native_batch_norm_backward
EPS_UNUSED = 0.0  # the backward kernel of a training step takes r instead


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def _like(values: Tensor, x: Tensor) -> Tensor:
    """In the layout of ``x``: kernels that meet two layouts are many times slower."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return values.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


class _Slopes(torch.autograd.Function):
    """(dx, dw, db) of g, x and w."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        g = _like(g, x)
        dx, dw, db = _backward(g, x, w, None, None, mean, r, True, EPS_UNUSED, [True, True, True])
        ctx.save_for_backward(g, x, w, mean, r, dw)
        return dx, dw, db

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, h: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor | None, ...]:
        g, x, w, mean, r, dw = ctx.saved_tensors
        n = x.numel() // x.shape[1]
        h = _like(h, x)
        none, one = torch.zeros_like(r), torch.ones_like(r)
        turned, along, _ = _backward(h, x, one, None, None, mean, r, True, EPS_UNUSED, [True, True, False])  # r P h
        # the kernel's slope of a weight is a sum of products; r P h has no mean to take away
        both = _backward(g, turned, one, None, None, none, one, True, EPS_UNUSED, [False, True, False])[1]
        dg = torch.addcmul(_per_channel(v - u * r * mean), x, _per_channel(u * r))
        dg.addcmul_(turned, _per_channel(w))
        scale = r * w
        moved = (g * _per_channel(u - scale * along / n)).addcmul_(h, _per_channel(scale * dw / -n))
        dx = _backward(moved, x, one, None, None, mean, r, True, EPS_UNUSED, [True, False, False])[0]
        pull = scale * r * both / n  # of x^, in units of x
        dx.addcmul_(x, _per_channel(-pull)).add_(_per_channel(pull * mean))
        return dg, dx, both, None, None


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
        y: Tensor
        y, mean, r = _forward(x, w, b, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, w, mean, r)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w, mean, r = ctx.saved_tensors
        return *_Slopes.apply(g, x, w, mean, r), None


def batch_norm_twice(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Maps ``[B, C, H, W]`` normalised by their own statistics, scaled and shifted; exact to second derivatives.

    A gradient of a gradient takes a third of the time of torch's own. For plain autograd, not under vmap, and float32
    or float64.
    """
    normalised: Tensor = _Normalised.apply(x, weight, bias, eps)
    return normalised


class _Shared(torch.autograd.Function):
    """y of a part of the batch, given the statistics of the whole; its gradient goes by way of all ranks' parts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor, mean: Tensor, var: Tensor, count: int, eps: float) -> Tensor:
        ctx.save_for_backward(x, w, mean, var)
        ctx.count, ctx.eps = count, eps
        y: Tensor = _forward(x, w, b, mean, var, False, 0.0, eps)[0]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w, mean, var = ctx.saved_tensors
        # with statistics that stand still: w r g; what they pass on is w r (mean(g) + x^ mean(g x^)), over all ranks
        dx, dw, db = _backward(_like(g, x), x, w, mean, var, None, None, False, ctx.eps, [True, True, True])
        all_dw, all_db = ranks().sum(torch.stack((dw, db))).unbind()
        r = (var + ctx.eps).rsqrt()
        slope = -w * r * r * all_dw / ctx.count
        shift = -w * r * all_db / ctx.count - slope * mean
        dx = dx.addcmul_(x, _per_channel(slope.to(x.dtype))).add_(_per_channel(shift.to(x.dtype)))
        return dx, dw, db, None, None, None, None


def batch_norm_shared(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, count: int, eps: float
) -> Tensor:
    """Maps ``[B, C, H, W]``, a part of a batch, normalised by the statistics of the whole; differentiable once.

    Args:
        mean, var: ``[C]`` of the whole batch, as `metagvae.compute.batch_statistics.batch_moments` gives them.
        count: numbers per channel in the whole batch.
    """
    normalised: Tensor = _Shared.apply(x, weight, bias, mean, var, count, eps)
    return normalised
