"""ModelCentrality: which of several VAEs the others agree with (Lin, Thekumparampil, Fanti & Oh, ICML 2020).

A model draws groups of images that share one of its units. Another model's encoder votes for the unit of its own that
varies least within a group. It agrees with the first model as far as its votes tell which unit was shared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Agreement:
    """How far each encoder recognises what each model's groups share.

    Args:
        corrected: ``[n, n]``: encoder of model i on groups of model j, held out; 0 is guessing, 1 is always.
        error: ``[n]``: standard deviation that guessing alone would give an entry of column j.
    """

    corrected: np.ndarray
    error: np.ndarray

    @property
    def centrality(self) -> np.ndarray:
        """``[n]``: the mean of a model's row and column, itself left out."""
        both = (self.corrected + self.corrected.T) / 2
        count = len(both)
        found: np.ndarray = (both.sum(1) - both.diagonal()) / max(count - 1, 1)
        return found

    @property
    def recognises_itself(self) -> bool:
        """Whether the models recognise their own groups clear of guessing; if not, agreement says nothing."""
        own = self.corrected.diagonal()
        return bool(own.mean() > 2 * np.sqrt((self.error**2).mean() / len(own)))


def least_varying(codes: np.ndarray, groups: int, live: np.ndarray) -> np.ndarray:
    """Votes, int64 ``[groups]``: places among the live units of the one that varies least in each group.

    A unit's variance in a group is taken relative to its variance over all groups; one that never varies has no vote.

    Args:
        codes: float64 ``[groups * images, units]``, the images of a group in a row.
        live: unit numbers that have a vote.
    """
    codes = codes[:, live]
    within, whole = codes.reshape(groups, -1, len(live)).var(1), codes.var(0)
    relative = np.full(within.shape, np.inf)
    np.divide(within, whole, out=relative, where=whole > 0)
    votes: np.ndarray = relative.argmin(1)
    return votes


def held_out_accuracy(votes: np.ndarray, shared: np.ndarray) -> float:
    """How often votes tell what was shared, by majorities of the other half of the groups; each half is scored once.

    The halves have as many groups of each shared unit.

    Args:
        votes, shared: int64 ``[groups]``, numbers from 0.
    """
    half = np.zeros(len(shared), dtype=np.int64)
    for unit in np.unique(shared):
        rows = np.flatnonzero(shared == unit)
        half[rows[len(rows) // 2 :]] = 1
    right = 0
    for part in (0, 1):
        table = np.zeros((votes.max() + 1, shared.max() + 1))
        np.add.at(table, (votes[half != part], shared[half != part]), 1)
        told = np.where(table.sum(1) > 0, table.argmax(1), -1)  # a vote that was never seen tells nothing
        right += int((told[votes[half == part]] == shared[half == part]).sum())
    return right / len(shared)


def above_chance(accuracy: float, labels: int) -> float:
    """An accuracy on a scale where guessing one of ``labels`` is 0 and always right is 1; 0 with a single label."""
    return 0.0 if labels < 2 else (accuracy - 1 / labels) / (1 - 1 / labels)
