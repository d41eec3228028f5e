"""What is shown and written: nothing that strangers named steers a terminal, a spreadsheet or a file system."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from episodes import InputError
from episodes.errors import printable
from metagvae.storage.spreadsheet import cell, write_table
from tests.metagvae.cli.test_cli import call, pictures

STEERING = "\x1b[2J\x1b]0;owned\x07\u202e\x9b31m"


def test_text_that_steers_becomes_escapes_and_other_text_stays() -> None:
    assert printable("a\x1b[2J\tb\nc", lines=False) == "a\\x1b[2J\\tb\\nc"
    assert printable("two\nlines\r") == "two\nlines\\r"
    assert printable("\udcff\u202e\x9b") == "\\udcff\\u202e\\x9b"
    for text in ("é00 e\u0301", "日本\u3000語", "a\xa0b", "\u0645\u06cc\u200c\u062e", "👩\u200d🚀", "± 95 %"):
        assert printable(text) == text
    assert str(InputError(f"{STEERING} is no class.")).isprintable()


@pytest.mark.parametrize("opener", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", " ="])
def test_text_that_opens_a_formula_is_no_formula(opener: str) -> None:
    assert cell(f"{opener}cmd|' /C calc'!A0") == f"'{opener}cmd|' /C calc'!A0"


@pytest.mark.parametrize("value", [-1, "-1", "+1.5", "-.5", "-1e5", -0.25, "a=b", "a-b", "", "(=1)"])
def test_plain_numbers_and_other_text_stay(value: object) -> None:
    assert cell(value) == str(value)


@pytest.mark.parametrize("value", ["-1+2", "-", "+", "-1e5x", "--1", "-inf", "-\u0661"])
def test_what_is_nearly_a_number_is_none(value: str) -> None:
    assert cell(value) == f"'{value}"


def test_a_table_holds_any_text(tmp_path: Path) -> None:
    row = ["a;=b", 'q"=c', "line\n=d", "\udcff", "nul\0", "\r=e"]
    write_table(tmp_path / "t.csv", [str(n) for n in range(len(row))], [row])
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1] == ["a;=b", 'q"=c', "line\n=d", "\\udcff", "nul\\x00", "'\r=e"]
    assert '"a;=b"' in (tmp_path / "t.csv").read_text()


def test_predict_with_hostile_names_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Class folders, examples, new pictures, readable and not: in every column of the table and on the screen."""
    examples, others = pictures(tmp_path / "examples", 3, 3), pictures(tmp_path / "others", 1, 2)
    (examples / "kind00").rename(examples / "=1+1")
    (examples / "kind01").rename(examples / "-1")
    (examples / f"-1/{STEERING}.png").write_text("no picture")
    for name in ("=bad.png", "\tbad.png", f"{STEERING}bad.png", "new\nline.png"):
        (others / name).write_text("no picture")
    os.rename(others / "kind00" / "1.png", os.fsencode(others) + b"/@\xff.png")
    out = tmp_path / "p.csv"
    status, said, err = call(capsys, "predict", str(examples), str(others), "--out", str(out), "--invert", "false")
    assert status == 0, err
    assert printable(said + err) == said + err
    assert "left out: -1/\\x1b[2J" in said
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        for name, value in row.items():
            assert cell(value) == value or value.startswith("'"), (name, value)
    assert "'@\\udcff.png" in {row["file"] for row in rows}
    problems = {row["file"]: row["problem"] for row in rows if row["problem"]}
    assert problems["'=bad.png"].startswith("'=bad.png is not")
    assert len(problems) == 4
    labels = {row["prediction"] for row in rows} | {row["second"] for row in rows}
    assert labels <= {"", "'=1+1", "-1", "kind02"}
    assert "'-1" not in labels
