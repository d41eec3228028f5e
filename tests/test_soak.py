"""The soak's own counting: few faults of each kind, on tiny runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def soak(tmp_path: Path, *arguments: str) -> dict:
    target = tmp_path / "counts.json"
    words = [sys.executable, str(ROOT / "tools" / "soak.py"), *arguments, "--json", str(target)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(target.read_text())["rows"]
    return row


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        ("kills", "runs that differ"),
        ("writes", "unreadable or older afterwards"),
        ("disk", "older state gone, remnant or traceback"),
        ("damage", "anything else"),
    ],
)
def test_a_few_faults(check: str, wrong: str, tmp_path: Path) -> None:
    row = soak(tmp_path, check, "--count", "3", "--only", "prototypes")
    assert row["runs that differ"] == row[wrong] == 0
    assert row["runs finished"] >= 1


@pytest.mark.slow
def test_memory_is_measured(tmp_path: Path) -> None:
    row = soak(tmp_path, "memory", "--only", "prototypes", "--steps", "1000")
    assert row["MB at step 500"] > 50
    assert row["growth, %"] < 5
