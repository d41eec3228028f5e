"""The table that puts the arms of the comparison side by side, from measurements made up for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import generators


def score(frechet: float) -> dict[str, object]:
    estimate = {"value": frechet, "low": frechet - 1, "high": frechet + 1}
    return {
        "frechet": estimate, "kernel": estimate, "against": estimate, "kernel_against": estimate,
        "precision": 0.5, "recall": 0.25, "discriminator": 0.9, "rebuilt": 2 * frechet,
    }  # fmt: skip


def attribute(name: str, agrees: float, change: float, leak: float) -> dict[str, object]:
    return {
        "attribute": name,
        "agrees": agrees,
        "changes": {"other": change, "third": 0.01},
        "leak": leak,
        "chance": 0.5,
    }


def test_each_arm_is_the_mean_over_its_seeds_and_compared_with_the_plain_vae_seed_by_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generators, "RESULTS", tmp_path)
    parts = {
        "sampling": {"scores": {f"m-{a}-seed{s}": score(v) for a, s, v in (
            ("beta", 0, 8.0), ("beta", 1, 13.0), ("plain", 0, 10.0), ("plain", 1, 14.0))}},
        "likelihood": {"runs": [{"run": f"m-{a}-seed{s}", "log_p": rows} for a, s, rows in (
            ("plain", 0, [-90.0, -100.0]), ("plain", 1, [-92.0, -98.0]),
            ("beta", 0, [-89.0, -97.0]), ("beta", 1, [-91.0, -95.0]))]},
        "control": {"numbers": {
            "units": {"m-plain-seed0": [{"rank": -0.4}, {"rank": 0.9}], "m-plain-seed1": [{"rank": 0.6}]},
            "attributes": {f"m-beta-seed{s}": [attribute("a", 0.98, 0.02, 0.9), attribute("b", 0.9, 0.1, 0.6)]
                           for s in (0, 1)}}},
        "probe": {"results": [{"classifier": "linear", "encoder": f"m-plain-seed{s}", "error": 0.1} for s in (0, 1)]},
        "fewshot": {"single_seeds": [{"method": f"m-beta-seed{s}", "error": 0.3 + 0.02 * s} for s in (0, 1)]},
    }  # fmt: skip
    for part, content in parts.items():
        (tmp_path / f"x-{part}.json").write_text(json.dumps(content))
    comparison = generators.Comparison("x")
    assert comparison.arms == ["m-plain", "m-beta"]
    plain, beta = (comparison.row(arm) for arm in comparison.arms)
    assert plain["Frechet distance"] == "12.00 (sd 2.83)"
    assert plain["Frechet less plain's"] == plain["less plain's"] == "–"
    assert beta["Frechet less plain's"] == "-1.50 ± 6.35"  # -2 and -1: 12.706 * 0.7071 / sqrt(2)
    assert beta["less plain's"] == "+2.00 ± 1.96"  # images +1 and +3, seeds averaged
    assert plain["least rank correlation of a unit"] == "0.500 (sd 0.141)"
    assert beta["attribute set: least agreement, %"] == "90.0 (sd 0.0)"
    assert beta["others: most change, %"] == "10.0 (sd 0.0)"
    assert beta["adversary above chance, at most, points"] == "40.0 (sd 0.0)"
    assert plain["linear probe, error in %"] == "10.00 (sd 0.00)"
    assert beta["linear probe, error in %"] == "–"
    assert beta["Omniglot, 5 ways 1 shot, error in %"] == "31.00 (sd 1.41)"
