"""`metagvae evaluate-vectors`: pixels as vectors are the control of raw pixels; what no file may hold is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from episodes import to_float
from episodes.datasets import make_dataset
from tests.support.commands import call

SHAPES = ["--way", "5", "--shot", "1", "5", "--query", "5", "--episodes", "40"]


def test_pixels_as_vectors_have_the_error_of_the_control(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bank = make_dataset("digits").load("test")
    rows, labels = to_float(bank.images[:]).flatten(1).numpy(), bank.labels.numpy()
    ranks = np.arange(len(rows)) - bank.offsets.numpy()[labels]
    order = np.argsort(ranks, kind="stable")  # one of each class after the other: a file need not be sorted by class
    np.savez(tmp_path / "pixels.npz", vectors=rows[order], labels=labels[order])
    words = ["evaluate-vectors", str(tmp_path / "pixels.npz"), *SHAPES, "--json", str(tmp_path / "v.json")]
    status, out, err = call(capsys, *words)
    assert status == 0, err
    assert "angle" in out
    words = ["evaluate", "--data", "digits", "--encoder", "pixels", *SHAPES, "--json", str(tmp_path / "e.json")]
    assert call(capsys, *words)[0] == 0
    found, expected = (json.loads((tmp_path / name).read_text())["results"] for name in ("v.json", "e.json"))
    for shape, other in zip(found, expected, strict=False):  # by distance; the rows by angle follow
        assert (shape["way"], shape["shot"]) == (other["way"], other["shot"])
        assert shape["error"] == pytest.approx(other["error"], abs=1e-9)
        assert shape["half_width"] == pytest.approx(other["half_width"], abs=1e-9)
        assert shape["over_classes"]["low"] == pytest.approx(other["over_classes"]["low"], abs=1e-9)
    assert len(found) == 2 * len(expected) == 4


def test_row_numbers_among_arrays_are_no_feature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = np.stack([np.arange(24) + 5, np.random.default_rng(0).normal(size=24)], 1)
    np.savez(tmp_path / "v.npz", vectors=vectors, labels=np.repeat([0, 1, 2], 8))
    status, _, err = call(capsys, "evaluate-vectors", str(tmp_path / "v.npz"), "--way", "3", "--query", "3")
    assert status == 2
    assert "column called 'vectors[:, 0]', like the numbers of rows" in err


def test_a_table_is_read_as_the_arrays_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(["élan", "b", "c"], 8)
    vectors = generator.normal(size=(24, 3)).astype(np.float32) + np.repeat(np.eye(3), 8, 0).astype(np.float32)
    np.savez(tmp_path / "same.npz", vectors=vectors, labels=labels)
    lines = [f"{row[0]!r};{name};{row[1]!r};{row[2]!r}" for row, name in zip(vectors.tolist(), labels, strict=True)]
    (tmp_path / "same.csv").write_text("\n".join(["one;Label;two;three", *lines, ""]), encoding="utf-8")
    said = []
    for name in ("same.npz", "same.csv"):
        words = ["evaluate-vectors", str(tmp_path / name), "--way", "3", "--query", "3", "--episodes", "30"]
        status, out, err = call(capsys, *words)
        assert status == 0, err
        said.append(out.replace(name, "same"))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label,a\nx,1\nx,2\nx\n", "line 4"),
        ("label,a\nx,one\n", "line 2"),
        ("label,a,b\nx,1\n", "2 values for 3 columns"),
        ("name,a\nx,1\n", "one column 'label'"),
        ("label\nx\n", "one column 'label'"),
        ("label,a\nx,nan\n", "vector 0, holds NaN"),
        (",label,a\n0,x,3\n1,x,5\n2,y,4\n", "column without a heading, like the numbers of rows"),
        ("Id,label,a\n7,x,3\n8,x,5\n9,y,4\n", "column called 'id', like the numbers of rows"),
        ("label,a\nx,1e300\n", "vector 0"),
        ("label,a\n", r"\[0, 1\]"),
        ("label,a\n" + "x,1\ny,2\n" * 30, "5"),
        (b"PK\x05\x06", "vectors.npy is missing"),
        (None, "no regular file|cannot be read"),
    ],
)
def test_what_is_no_table_of_vectors_is_refused_in_a_sentence(
    content: str | bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("x.npz" if isinstance(content, bytes) else "x.csv")
    if isinstance(content, bytes):
        path.write_bytes(content + bytes(18))
    elif content is not None:
        path.write_text(content)
    status, out, err = call(capsys, "evaluate-vectors", str(path), "--json", str(tmp_path / "out" / "found.json"))
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert re.search(message, err), err
    assert not (tmp_path / "out" / "found.json").exists()
