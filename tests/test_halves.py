"""The check of the interval over classes: the command runs, and its rows are made of both halves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from episodes.datasets import scribbles
from experiments import halves


def test_halves_of_invented_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAGVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scribbles, "SCRIPTS", {"train": 2, "validation": 2, "test": 6})
    monkeypatch.setattr(scribbles, "CHARACTERS", 4)
    out = tmp_path / "halves.json"
    asked = "--data scribbles --rotations none --encoder pixels --ways 3 --halves 4 --episodes 40 --json"
    halves.main([*asked.split(), str(out)])
    content = json.loads(out.read_text())
    (row,) = content["rows"]
    assert row["scripts a half"] == "3"
    assert 20 < float(row["error, %"]) < 67  # chance
    assert 0 < float(row["sd over halves"]) < float(row["mean half width"]) * 2
    assert float(row["halves agree, %"]) in (0, 25, 50, 75, 100)
    assert "6 scripts, 4 random halves" in content["about"]
