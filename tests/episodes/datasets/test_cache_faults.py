"""A short run of what `tools/cache_faults.py` does at length: kills, two users, damage in every region of an entry."""

from __future__ import annotations

import os

import pytest

from tools.cache_faults import KINDS, is_right, run


@pytest.mark.skipif(not hasattr(os, "fork"), reason="decoders are forked")
@pytest.mark.parametrize("count", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_nothing_is_left_behind_and_nothing_wrong_is_served(count: int) -> None:
    report = run(count, seed=count)
    assert report["failures"] == []
    assert sum(row["cases"] for row in report["rows"]) == count


@pytest.mark.parametrize(
    "change", [{"wrong": 1}, {"left": [".tmp-a"]}, {"decoded for the readers": 0}, {"decoded for the readers": 2}]
)
def test_what_counts_as_a_failure(change: dict[str, object]) -> None:
    right = {"kind": "damage", "changed": True, "wrong": 0, "left": [], "decoded for the readers": 1}
    assert "damage" in KINDS
    assert is_right(right)
    assert not is_right({**right, **change})
