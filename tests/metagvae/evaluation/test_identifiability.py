"""The mean correlation coefficient against hand-made cases and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from episodes import InputError
from metagvae.evaluation.identifiability import correlations, mcc

RNG = np.random.default_rng(0)


def test_order_sign_and_scale_do_not_matter() -> None:
    sources = RNG.normal(size=(400, 4))
    codes = sources[:, [3, 0, 2, 1]] * [-1, 5, 0.01, -7] + [1, 2, 3, 4]
    match = mcc(codes[:200], sources[:200], codes[200:], sources[200:])
    assert match.units == [1, 3, 2, 0]
    assert match.score == pytest.approx(1)


def test_independent_codes_score_near_nothing() -> None:
    rows = [RNG.normal(size=(10_000, 5)) for _ in range(4)]
    assert mcc(*rows).score < 0.03


def test_the_assignment_is_of_other_rows() -> None:
    """Noise assigned and scored on the same few rows flatters itself; held out it does not."""
    codes, sources = RNG.normal(size=(2, 40, 6))
    same = mcc(codes[:20], sources[:20], codes[:20], sources[:20]).score
    held_out = mcc(codes[:20], sources[:20], codes[20:], sources[20:]).score
    assert same > held_out + 0.05


def test_the_best_total_and_not_the_best_of_each() -> None:
    """Unit 0 is nearest to both sources; the best pairing leaves it to the second."""
    sources = RNG.normal(size=(100_000, 2))
    noise = RNG.normal(size=(100_000, 2))
    codes = np.stack((sources[:, 0] + sources[:, 1], sources[:, 0] + 1.2 * noise[:, 0]), 1)
    assert mcc(codes[:500], sources[:500], codes[500:], sources[500:]).units == [1, 0]


def test_ranks_as_scipy_has_them_and_constants_count_nothing() -> None:
    codes, sources = RNG.normal(size=(300, 2)), RNG.normal(size=(300, 3))
    codes[:, 1] = sources[:, 0] ** 3
    mine = correlations(codes, sources, "spearman")
    scipys = np.abs(spearmanr(codes, sources).statistic[:2, 2:])
    assert np.allclose(mine, scipys)
    codes[:, 0] = 4
    assert (correlations(codes, sources)[0] == 0).all()
    match = mcc(codes[:, 1:], sources, codes[:, 1:], sources)
    assert match.units == [0, -1, -1]
    assert match.each[1:] == [0, 0]


def test_bad_rows_are_refused() -> None:
    rows = RNG.normal(size=(10, 2))
    for bad, message in ((rows[:9], "same rows"), (np.full_like(rows, np.nan), "not finite")):
        with pytest.raises(InputError, match=message):
            correlations(bad, rows)
    with pytest.raises(InputError, match="'pearson' or 'spearman'"):
        correlations(rows, rows, "rdc")
