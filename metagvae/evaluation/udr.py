"""Unsupervised disentanglement ranking (Duan et al., ICLR 2020): a model is good if others of its kind are like it."""

from __future__ import annotations

import numpy as np

KINDS = ("lasso", "spearman")


def likeness(one: np.ndarray, other: np.ndarray, kind: str) -> np.ndarray:
    """``[units, units]`` >= 0: how much each unit of one model tells of each of the other.

    Args:
        one, other: codes ``[n, units]`` of the same images, live units alone.
        kind: ``spearman``, absolute rank correlations; ``lasso``, absolute weights of an L1 regression (weight 0.1)
            of the other's standardised units on the one's.
    """
    from scipy.stats import rankdata
    from sklearn.linear_model import Lasso

    if kind == "spearman":
        ranks = [_standardised(rankdata(codes, axis=0)) for codes in (one, other)]
        correlations: np.ndarray = np.abs(ranks[0].T @ ranks[1]) / len(one)
        return correlations
    x, y = _standardised(one), _standardised(other)
    # units that say the same need many rounds: a causal prior gives a factor several
    return np.stack([np.abs(Lasso(alpha=0.1, max_iter=100_000).fit(x, column).coef_) for column in y.T], 1)


def _standardised(codes: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (codes - codes.mean(0)) / codes.std(0)
    return scaled


def one_to_one(table: np.ndarray) -> float:
    """How far a table of likeness pairs units one by one: the mean over rows and columns of max squared by sum."""

    def dominance(rows: np.ndarray) -> float:
        whole = rows.sum(1)
        return float(np.where(whole > 0, rows.max(1) ** 2 / np.where(whole > 0, whole, 1.0), 0.0).mean())

    return (dominance(table) + dominance(table.T)) / 2


def udr(codes: list[np.ndarray], kind: str) -> np.ndarray:
    """``[n]``: each model's median `one_to_one` with the others.

    Args:
        codes: ``[images, live units]`` of each model, of the same images. A model without a live unit scores 0.
    """
    count = len(codes)
    table = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if i != j and codes[i].shape[1] and codes[j].shape[1]:
                table[i, j] = one_to_one(likeness(codes[i], codes[j], kind))
    return np.array([np.median(np.delete(row, i)) if count > 1 else 0.0 for i, row in enumerate(table)])
