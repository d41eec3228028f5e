"""Interventional robustness of a code (Suter, Miladinović, Schölkopf & Bauer, ICML 2019)."""

from __future__ import annotations

import numpy as np

from metagvae.evaluation.codes import GROUPS, Coded, in_use, merged


def robustness(data: Coded, quantile: float = 0.99) -> tuple[np.ndarray, np.ndarray]:
    """How still a unit stays while everything but one factor changes, ``[units, factors]``, and the units' weights.

    For each value of a factor, the ``quantile`` of a unit's distances from its mean over the pictures of that value;
    their mean over the values, as a share of the unit's largest distance from its mean over all. One minus that is
    the entry. A unit weighs as much as it moves at most. Units not in use have entries and weights of 0. Ordered
    factors are merged to 10 values: one that is seen once leaves no unit room to move.
    """
    entries = np.zeros((data.codes.shape[1], len(data.factors)))
    used = in_use(data)
    codes = data.codes[:, used]
    most = np.abs(codes - codes.mean(0)).max(0, initial=0.0)
    for number in range(len(data.factors)):
        column, moved = merged(data, number, GROUPS), []
        for value in np.unique(column):
            rows = codes[column == value]
            moved.append(np.quantile(np.abs(rows - rows.mean(0)), quantile, axis=0))
        entries[used, number] = 1 - np.mean(moved, 0) / most
    weights = np.zeros(len(entries))
    weights[used] = most
    return entries, weights


def irs(data: Coded) -> float:
    """The mean over units of their best entry of `robustness`, each weighing as much as it moves at most."""
    entries, weights = robustness(data)
    return float((entries.max(1) * weights).sum() / (weights.sum() or 1.0))
