"""Means, rows and moments of a step's whole batch, of which this process may hold a part.

Every rank gets the same values, and gradients reach the rows of all ranks. In a process by itself these are the plain
functions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from episodes.batch_share import held
from metagvae.compute.processes import ranks


def batch_mean(values: Tensor, known: Tensor | None = None) -> Tensor:
    """The mean of ``[rows]`` over the whole batch, or over its rows that are ``known`` (bool ``[rows]``); 0 of none.

    Unequally many rows per item, or none here, are fine.
    """
    if known is None:
        if held().whole:
            return values.mean()
        total, count = values.sum(), torch.full_like(values[:1].sum(), len(values))
    else:
        total, count = values.masked_fill(~known, 0).sum(), known.sum().to(values)
    total, count = ranks().sum(torch.stack((total, count))).unbind()
    return total / count.clamp(min=1)


def batch_rows(values: Tensor) -> Tensor:
    """Rows ``[all, ...]`` of the whole batch, in order; this process's are ``[rows, ...]``, equally many per item."""
    share = held()
    if share.whole:
        return values
    rows = values.new_zeros(share.all_rows(len(values)), *values.shape[1:])
    rows[share.rows(len(values))] = values
    return ranks().sum(rows)


def _moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance ``[C]`` of this process's maps ``[rows, C, H, W]``, in float32 or better."""
    if maps.is_cpu:  # torch.var_mean takes twenty times as long where channels are last
        # the kernel answers in the precision of the averages that it is given
        exact = torch.float64 if maps.dtype == torch.float64 else torch.float32
        averages = torch.zeros(2, maps.shape[1], dtype=exact)
        mean, var = torch.batch_norm_update_stats(maps, averages[0], averages[1], 0.0)
        return mean, var
    var, mean = torch.var_mean(maps if maps.dtype == torch.float64 else maps.float(), dim=(0, 2, 3), correction=0)
    return mean, var


@torch.no_grad()
def batch_moments(maps: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance ``[C]`` of maps ``[rows, C, H, W]`` over the whole batch, and of how many numbers; no graph.

    Parts are joined by their means and variances (Chan, Golub & LeVeque 1983), whose squares do not cancel.
    """
    share, group = held(), ranks()
    count = share.all_rows(len(maps)) * maps[0, 0].numel()
    mean, var = _moments(maps)
    if share.whole:
        return mean, var, count
    parts = mean.new_zeros(group.size, 3, len(mean))
    parts[group.rank] = torch.stack((mean, var, torch.full_like(mean, share.weight)))
    means, variances, weights = group.sum(parts).unbind(1)
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean).square())).sum(0), count
