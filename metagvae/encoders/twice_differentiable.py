"""Batch normalisation whose second derivatives are written out: what autograd makes of its parts is many small kernels.

With x^ = (x - mean) r, r = (var + eps)^-1/2, n numbers per channel and P h = h - mean(h) - x^ mean(h x^), which is
symmetric, the layer y = w x^ + b has the slopes

    dx = r P(w g),    dw = sum g x^,    db = sum g

and they, in turn, given h, u and v for dx, dw and db, the slopes

    dg = w r P h + u x^ + v,    dw = sum g r P h,
    dx = r P(u g - r (h mean(w g x^) + w g mean(h x^))) - (w r / n) (sum g r P h) x^
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_OVER = (0, 2, 3)


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def _projected(h: Tensor, x: Tensor, along: Tensor) -> Tensor:
    """P h, given mean(h x^) per channel."""
    return torch.addcmul(h - h.mean(_OVER, keepdim=True), x, _per_channel(along), value=-1)


class _Slopes(torch.autograd.Function):
    """(dx, dw, db) of g, x and w; ``x`` stands for the input, of which only x^ and r are looked at."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, x: Tensor, w: Tensor, normal: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = g.numel() // g.shape[1]
        dw, db = (g * normal).sum(_OVER), g.sum(_OVER)
        inner = torch.addcmul(g - _per_channel(db / n), normal, _per_channel(dw / n), value=-1)
        dx = _per_channel(r * w) * inner
        return dx, dw, db

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        g, _, w, normal, r = inputs
        ctx.save_for_backward(g, w, normal, r, output[1])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        h, u, v = slopes
        g, w, normal, r, dw = ctx.saved_tensors
        n = g.numel() // g.shape[1]
        along = (h * normal).mean(_OVER)
        turned = _per_channel(r) * _projected(h, normal, along)
        both = (g * turned).sum(_OVER)
        dg = torch.addcmul(torch.addcmul(_per_channel(v), normal, _per_channel(u)), turned, _per_channel(w))
        # what x^ is asked to move by, less the factor r
        scale = r * w
        moved = torch.addcmul(_per_channel(u - scale * along) * g, h, _per_channel(scale * dw), value=-1 / n)
        dx = _per_channel(r) * _projected(moved, normal, (moved * normal).mean(_OVER))
        return dg, torch.addcmul(dx, normal, _per_channel(scale * both), value=-1 / n), both, None, None


class _Normalised(torch.autograd.Function):
    """(y, x^, r) of x, w and b; the last two are there to be looked at."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        var, mean = torch.var_mean(x, dim=_OVER, correction=0)
        r = (var + eps).rsqrt()
        normal = (x - _per_channel(mean)) * _per_channel(r)
        return torch.addcmul(_per_channel(b), normal, _per_channel(w)), normal, r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, normal, r = output
        ctx.mark_non_differentiable(normal, r)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], inputs[1], normal, r)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Tensor) -> tuple[Tensor | None, ...]:
        if g is None:  # nothing depends on y
            return None, None, None, None
        x, w, normal, r = ctx.saved_tensors
        return *_Slopes.apply(g, x, w, normal, r), None


class _ByLead(torch.autograd.Function):
    """(y, x^, r) of x, w and b, the statistics those of the first ``lead`` rows; differentiable once."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor, eps: float, lead: int) -> tuple[Tensor, Tensor, Tensor]:
        var, mean = torch.var_mean(x[:lead], dim=_OVER, correction=0)
        r = (var + eps).rsqrt()
        normal = (x - _per_channel(mean)) * _per_channel(r)
        return torch.addcmul(_per_channel(b), normal, _per_channel(w)), normal, r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, normal, r = output
        ctx.mark_non_differentiable(normal, r)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[1], normal, r)
        ctx.lead = inputs[4]

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Tensor) -> tuple[Tensor | None, ...]:
        if g is None:
            return None, None, None, None, None
        w, normal, r = ctx.saved_tensors
        first, n = normal[: ctx.lead], normal[: ctx.lead].numel() // normal.shape[1]
        dw, db = (g * normal).sum(_OVER), g.sum(_OVER)
        through = torch.addcmul(_per_channel(db), first, _per_channel(dw))  # what the statistics pass on
        scale = _per_channel(r * w)
        dx = torch.cat((g[: ctx.lead] - through / n, g[ctx.lead :])) * scale
        return dx, dw, db, None, None


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Maps ``[B, C, H, W]`` normalised by their own statistics, scaled and shifted; exact to second derivatives.

    Under `torch.func.vmap` too, where torch's own batch norm with weights gives wrong ones. Third derivatives are not
    asked of it.
    """
    normalised: Tensor = _Normalised.apply(x, weight, bias, eps)[0]
    return normalised


def batch_norm_by_lead(x: Tensor, weight: Tensor, bias: Tensor, eps: float, lead: int) -> Tensor:
    """The same with the statistics of the first ``lead`` rows; its first derivatives alone can be asked for."""
    normalised: Tensor = _ByLead.apply(x, weight, bias, eps, lead)[0]
    return normalised
