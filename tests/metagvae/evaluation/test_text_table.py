"""Tables of text: aligned, as wide as their cells, and in one place."""

from __future__ import annotations

import re
from pathlib import Path

from metagvae.evaluation.text_table import markdown_table, text_table

ROOT = Path(__file__).resolve().parents[3]
LINES = [["", "one"], ["± 1.2", "x"], ["a", ""]]


def test_columns_are_as_wide_as_their_widest_cell_and_no_line_ends_in_blanks() -> None:
    assert text_table(LINES).split("\n") == ["       one", "± 1.2  x", "a"]
    assert text_table(LINES, rule=True).split("\n")[1] == "-----  ---"
    assert text_table([]) == ""


def test_markdown_has_the_same_cells() -> None:
    assert markdown_table(LINES).split("\n") == ["| | one |", "| --- | --- |", "| ± 1.2 | x |", "| a | |"]


def test_nothing_else_aligns_or_rules_columns() -> None:
    for path in [p for top in ("metagvae", "episodes", "experiments", "scripts") for p in (ROOT / top).rglob("*.py")]:
        if path.name != "text_table.py":
            assert not re.search(r'\.ljust\(|" \| "\.join|\| --- ', path.read_text(encoding="utf-8")), path
