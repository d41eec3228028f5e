"""Ceilings of this machine: bytes copied, matrix products and convolutions per second."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from metagvae.benchmark.rows import Context, Row
from metagvae.benchmark.timing import Way, alone

GROUP = "ceilings"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _copy(context: Context) -> Way:
    source = torch.zeros(context.sizes.ceiling // 8 * 2**20, dtype=torch.uint8, device=context.device.device)
    target = torch.empty_like(source)
    return Way("copy", lambda: target.copy_(source), 2 * source.nbytes)  # read and written


def _product(context: Context, precision: torch.dtype) -> Way:
    side = context.sizes.ceiling
    a, b = (torch.randn(side, side, device=context.device.device, dtype=precision) for _ in range(2))
    return Way("matrix product", lambda: a @ b, 2 * side**3)


def _convolution(context: Context, precision: torch.dtype) -> Way:
    """Conv-4's costliest layer on 400 pictures, forward and backward."""
    pictures, width, side = 400, context.sizes.width, 14

    def channels_last(*shape: int) -> Tensor:
        drawn = torch.randn(shape, device=context.device.device, dtype=precision)
        return drawn.contiguous(memory_format=torch.channels_last)

    images = channels_last(pictures, width, side, side).requires_grad_()
    weight = channels_last(width, width, 3, 3).requires_grad_()
    slope = channels_last(pictures, width, side, side)

    def both_ways() -> None:
        torch.autograd.grad(F.conv2d(images, weight, padding=1), (images, weight), slope)

    return Way("convolution", both_ways, 3 * 2 * pictures * side**2 * 9 * width**2)


def rows(context: Context) -> list[Row]:
    """Every ceiling; rates of billions per second."""
    ways = {"copy": (_copy(context), "GB/s", "read and write both counted")}
    for name, precision in PRECISIONS.items():
        side = f"{context.sizes.ceiling:,}"
        ways[f"product {name}"] = (_product(context, precision), "GFLOP/s", f"{side} x {side}")
        layer = "Conv-4's second layer, 400 pictures, forward and backward, channels last"
        ways[f"conv {name}"] = (_convolution(context, precision), "GFLOP/s", layer)
    made = []
    for name, (way, unit, note) in ways.items():
        per_second = 1 / alone(context.clock, way, min(context.repeats, 3), context.least)
        made.append(Row(GROUP, name, "", unit, ours=per_second / 1e9, note=note))
    return made
