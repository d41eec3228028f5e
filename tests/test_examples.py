"""The examples: short scripts that use the library as a library, and run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.fresh import python

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

# what each prints at the end of its work; the numbers are checked below
SAYS = {
    "prototypes": r"5-way 1-shot, prototypes minus pixels: [+-][\d.]+ ± ([\d.]+) points",
    "guided_vae": r"content: a shift by two pixels changes it by ([\d.]+) of its variance\nsaved and read back: 26 ",
    "own_guidance": r"weight  0\.0: .* (0\.\d+)\nweight 10\.0: .* (0\.\d+)",
    "own_learner": r"matching_network +glyphs\S* validation +running +inductive +([\d.]+) ±",
}


def test_there_are_four_of_fifty_to_ninety_lines_of_code() -> None:
    assert {path.stem for path in EXAMPLES} == set(SAYS)
    for path in EXAMPLES:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        assert 50 <= len(lines) <= 90, path.name


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_runs_small(path: Path, tmp_path: Path) -> None:
    done = python(str(path), "--small", cwd=tmp_path, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    said = re.search(SAYS[path.stem], done.stdout)
    assert said, done.stdout
    assert all(0 < float(number) < 100 for number in said.groups()), done.stdout
    assert not any(tmp_path.iterdir()), "an example leaves no files behind"
