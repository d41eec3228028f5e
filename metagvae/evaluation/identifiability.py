"""Mean correlation coefficient: how well the units of a code are sources one by one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from episodes import InputError

Rows = NDArray[np.floating]


def correlations(codes: Rows, sources: Rows, method: str = "pearson") -> NDArray[np.float64]:
    """Absolute correlations ``[units, sources]`` of rows of codes and of sources; 0 where one is constant.

    Args:
        codes: ``[rows, units]``.
        sources: ``[rows, sources]``.
        method: ``pearson``, or ``spearman`` for the correlation of ranks.

    Raises:
        InputError: for another method, rows that are not the same, or numbers that are not finite.
    """
    if method not in ("pearson", "spearman"):
        raise InputError(f"a correlation is 'pearson' or 'spearman'; received {method!r}.")
    if codes.ndim != 2 or sources.ndim != 2 or len(codes) != len(sources) or len(codes) < 2:
        raise InputError(
            "codes [rows, units] and sources [rows, sources] need the same rows, two or more; received "
            f"{list(codes.shape)} and {list(sources.shape)}."
        )
    if not (np.isfinite(codes).all() and np.isfinite(sources).all()):
        raise InputError("codes or sources hold numbers that are not finite.")
    rows = [np.asarray(values, np.float64) for values in (codes, sources)]
    if method == "spearman":
        from scipy.stats import rankdata

        rows = [rankdata(values, axis=0) for values in rows]
    centred = [values - values.mean(0) for values in rows]
    lengths = [np.sqrt((values**2).sum(0)) for values in centred]
    products = np.abs(centred[0].T @ centred[1])
    scale = lengths[0][:, None] * lengths[1]
    found: NDArray[np.float64] = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return found


class Match(NamedTuple):
    """Which unit stands for each source, and how well. ``score`` is the mean of ``each``, in [0, 1]."""

    units: list[int]
    each: list[float]
    score: float


def mcc(codes: Rows, sources: Rows, fit_codes: Rows, fit_sources: Rows, method: str = "pearson") -> Match:
    """Mean correlation coefficient of units with sources, one unit for each source.

    The units are assigned on one set of rows and scored on another: on the same rows, noise would be assigned to its
    own advantage (the protocol of Hyvarinen & Morioka, NeurIPS 2016, held out). A source that no unit is left for
    counts 0.

    Args:
        codes, sources: ``[rows, units]`` and ``[rows, sources]`` to score on.
        fit_codes, fit_sources: the same of other rows, to assign units on.
        method: as for `correlations`.

    Example:
        >>> import numpy as np
        >>> from metagvae.evaluation.identifiability import mcc
        >>> sources = np.random.default_rng(0).normal(size=(100, 3))
        >>> codes = -2 * sources[:, [2, 0, 1]] + 1
        >>> match = mcc(codes[:50], sources[:50], codes[50:], sources[50:])
        >>> match.units, round(match.score, 3)
        ([1, 2, 0], 1.0)
    """
    from scipy.optimize import linear_sum_assignment

    fitted = correlations(fit_codes, fit_sources, method)
    units, matched = linear_sum_assignment(-fitted)
    scored = correlations(codes, sources, method)
    unit_of = {int(source): int(unit) for unit, source in zip(units, matched, strict=True)}
    each = [float(scored[unit_of[s], s]) if s in unit_of else 0.0 for s in range(scored.shape[1])]
    return Match([unit_of.get(s, -1) for s in range(scored.shape[1])], each, float(np.mean(each)))
