"""Outputs on screen and disk: nothing that strangers named steers a terminal, a spreadsheet or a file system."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest

import metagvae.zoo.load
from episodes import InputError
from episodes.errors import printable
from episodes.whole_files import write_beside
from metagvae.classifier.folders import COLUMNS
from metagvae.cli.outputs import _written_before, check_link, make_link
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.storage.spreadsheet import cell, write_table
from metagvae.zoo.load import save_encoder
from tests.support.commands import call, pictures

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
    assert "'@\\xff.png" in {row["file"] for row in rows}
    problems = {row["file"]: row["problem"] for row in rows if row["problem"]}
    assert problems["'=bad.png"].startswith("'=bad.png is not")
    assert len(problems) == 4
    labels = {row["prediction"] for row in rows} | {row["second"] for row in rows}
    assert labels <= {"", "'=1+1", "-1", "kind02"}
    assert "'-1" not in labels


def test_a_name_that_steers_is_shown_as_escapes_by_data_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = pictures(tmp_path / "pictures", 6, 3)
    (root / "kind00").rename(root / STEERING)
    for file in list((root / STEERING).iterdir())[1:]:
        file.write_text("no picture")
    status, said, err = call(capsys, "data", "check", str(root), "--size", "32")
    assert status == 0
    assert "\\x1b[2J" in said
    assert printable(said + err) == said + err


# --- links


def test_a_link_leads_to_its_target_through_a_linked_folder_and_is_moved_with_it(tmp_path: Path) -> None:
    runs = [tmp_path / "all" / "runs" / name for name in "ab"]
    for folder in (*runs, tmp_path / "all" / "real" / "deep"):
        folder.mkdir(parents=True)
    (tmp_path / "all" / "short").symlink_to(Path("real", "deep"))
    link = tmp_path / "all" / "short" / "best"
    for run in runs:
        check_link(str(link))
        make_link(str(link), str(run))
        assert link.resolve(strict=True) == run.resolve()
    make_link(str(link), str(link))  # itself chosen again: what it stands for
    assert link.resolve(strict=True) == runs[1].resolve()
    (tmp_path / "all").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "short" / "best").resolve(strict=True) == (tmp_path / "moved" / "runs" / "b").resolve()


def test_where_no_link_can_be_made_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, json = tmp_path / "odd.py", tmp_path / "s.json"
    file.write_text("")
    for link, outputs, says in (
        (file, (), "something else than a link"),
        (file / "x", (), "cannot be made"),
        (json, (None, str(tmp_path / "." / "s.json")), "one of the files to be written"),
    ):
        with pytest.raises(InputError, match=says):
            check_link(str(link), *outputs)
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(InputError, match="you may not write to"):
        check_link(str(tmp_path / "x"))


# --- outputs that are inputs


def hashes(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", ["report {run}", "report {run} {run}2", "calibrate {run} glyphs"])
def test_a_place_that_no_option_names_is_looked_at_before_the_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's own folder, the encoder's, and the current one."""
    run = tmp_path / "run"
    save_encoder(Encoder(EncoderConfig(width=4, latent=4, units={"content": list(range(4))})), run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metagvae.report.write_report", lambda *_: pytest.fail("it began"))
    monkeypatch.setattr("episodes.datasets.make_dataset", lambda *_, **__: pytest.fail("it began"))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    status, _, said = call(capsys, *command.format(run=run).split())
    assert status == 2
    assert "you may not write to" in said


@pytest.mark.parametrize("link", ["itself", "other spelling", "symbolic link", "hard link"])
def test_predict_never_writes_over_what_it_reads(link: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = pictures(tmp_path / "examples", 3, 2)
    archive = Path(shutil.make_archive(str(tmp_path / "x"), "zip", examples))
    out = tmp_path / "x.zip"
    if link == "other spelling":
        out = examples / ".." / "x.zip"
    elif link.endswith("link"):
        out = tmp_path / "y.csv"
        (os.symlink if link == "symbolic link" else os.link)(archive, out)
    before = hashes(tmp_path)
    for inputs in ((archive, archive), (archive, examples), (examples, archive)):
        status, _, err = call(capsys, "predict", *map(str, inputs), "--out", str(out), "--invert", "false")
        assert status == 2
        assert "what is to be read" in err
    assert hashes(tmp_path) == before


def test_a_file_inside_an_input_is_kept_unless_an_earlier_run_wrote_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples, new = pictures(tmp_path / "examples", 3, 2), pictures(tmp_path / "new", 1, 2)
    (examples / "splits.csv").write_text("class,split\n")
    mine = {
        "index.html": "<!DOCTYPE html><p>mine",
        "notes.csv": "file,prediction,my notes\n",
        "new.csv": '"file","prediction"\n',
    }
    for name, text in mine.items():
        (examples / name).write_text(text)
    before = hashes(examples)
    kept = [examples / name for name in ("kind00/1.png", "splits.csv", *mine)]
    for out in (*kept, examples, new / "kind00"):
        status, _, err = call(capsys, "predict", str(examples), str(new), "--out", str(out), "--invert", "false")
        assert status == 2
        assert "cannot write" in err
    for _ in range(2):  # and a table of predictions beside the pictures may be made anew
        out = new / "predictions.csv"
        status, _, err = call(capsys, "predict", str(examples), str(new), "--out", str(out), "--invert", "false")
        assert status == 0, err
    assert hashes(examples) == before
    assert len(out.read_text().splitlines()) == 3


@pytest.mark.parametrize("command", ["evaluate", "disentangle", "probe", "report"])
def test_no_command_writes_over_its_inputs(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(metagvae.zoo.load.shipped_encoders()["guided-vae-omniglot"], run / "encoder")
    (run / "config.yaml").write_text("kind: pretrain\n")
    root = pictures(tmp_path / "pictures", 6, 3)
    before = hashes(tmp_path)
    option = "--out" if command == "report" else "--json"
    source = [str(run)] if command == "report" else ["--encoder", str(run / "encoder")]
    data = [] if command == "report" else ["--root", str(root)]
    if command == "evaluate":
        data += ["--data", "folder"]
    outs = [run / "encoder" / "config.json", run / "encoder" / "model.safetensors"]
    if data:
        outs += [root, root / "kind00" / "1.png"]
    for out in outs:
        status, _, err = call(capsys, command, *source, *data, option, str(out))
        assert status == 2
        assert "cannot write" in err, err
    if command in ("evaluate", "disentangle"):
        status, _, err = call(capsys, command, *source, *data, "--figure", str(root / "kind00" / "1.png"))
        assert (status, "cannot write" in err) == (2, True)
        same = str(tmp_path / "same.png")
        status, _, err = call(capsys, command, *source, *data, "--figure", same, "--json", same)
        assert (status, "two outputs" in err) == (2, True)
    assert hashes(tmp_path) == before


def test_no_file_takes_the_place_of_a_pipe_or_of_a_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = str(pictures(tmp_path / "examples", 3, 2))
    pipe, link, real = tmp_path / "pipe", tmp_path / "link.csv", tmp_path / "real.csv"
    os.mkfifo(pipe)
    real.write_text("mine")
    link.symlink_to(real)
    for out, says in ((pipe, "a device or a pipe"), (link, f"what it leads to, {real}")):
        status, _, err = call(capsys, "predict", examples, examples, "--out", str(out))
        assert (status, says in err) == (2, True), err
    with pytest.raises(InputError, match="a device or a pipe"):
        write_beside(pipe, b"text")
    assert pipe.is_fifo()
    assert (link.is_symlink(), real.read_text()) == (True, "mine")
    write_beside(link, b"text")  # the package's own files: what a stranger's link leads to stays
    assert (link.is_symlink(), real.read_text()) == (False, "mine")


def test_the_pages_and_tables_that_may_be_made_anew_are_those_the_package_writes(tmp_path: Path) -> None:
    templates = Path(metagvae.__file__).parent
    for page in (templates / "classifier" / "page" / "page.html", templates / "report" / "templates" / "page.html"):
        assert _written_before(page)
    for rows in ([COLUMNS, ["1.png", "a"]], [COLUMNS]):
        write_table(tmp_path / "t.csv", rows[0], rows[1:])
        assert _written_before(tmp_path / "t.csv")
        (tmp_path / "old.csv").write_text(",".join(COLUMNS) + "\n")
        assert _written_before(tmp_path / "old.csv")
