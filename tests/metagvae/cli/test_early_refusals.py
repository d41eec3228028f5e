"""Values that no command can use: one sentence that names what is allowed, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import call, pictures


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("evaluate --data folder --root {own} --encoder pixels --split training", "unknown split 'training'"),
        ("evaluate --data digits --encoder pixels --episodes 2 --warps 1000000000", "must be between 1 and 1,000"),
        ("export-encoder guided-vae-omniglot {own}/x.onnx", "for a file of that kind give --to onnx"),
        ("likelihood runs/none --data digits --rotations episode", "this command draws none; choose none or classes"),
        ("select runs/none runs/other --data digits --rotations episode", "this command draws none"),
        ("export-encoder guided-vae-omniglot {own}/x.pt2", "give --to torch-export"),
    ],
)
def test_it_is_one_sentence(line: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = pictures(tmp_path / "own", 3, 3)
    before = sorted(own.rglob("*"))
    status, _, said = call(capsys, *line.format(own=own).split())
    assert (status, said.strip().count("\n")) == (2, 0)
    assert says in said
    assert sorted(own.rglob("*")) == before
