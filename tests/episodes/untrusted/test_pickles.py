"""Pickles whose few bytes ask for many: every kind of copy is counted, and frames hide nothing from the count."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from episodes import InputError
from episodes.untrusted.pickles import load_arrays
from episodes.untrusted.torch_files import load_torch
from tests.hostile.programs import copying_pickles

MEGABYTE = 2**20
COPIES = copying_pickles()


@pytest.mark.parametrize("name", COPIES)
def test_copies_do_not_fill_the_memory(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.pkl").write_bytes(COPIES[name])
    tracemalloc.start()
    with pytest.raises(InputError, match="copies of more than"):
        load_arrays(tmp_path / "a.pkl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * MEGABYTE


@pytest.mark.parametrize("name", COPIES)
def test_the_same_in_a_file_of_torch(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", COPIES[name])
    tracemalloc.start()
    with pytest.raises(InputError, match="copies of more than"):
        load_torch(tmp_path / "a.pt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * MEGABYTE


@pytest.mark.parametrize("framed", [False, True])
def test_frames_do_not_escape_the_count(tmp_path: Path, framed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("episodes.untrusted.pickles.MAX_READS", 2000)
    body = b"N0" * 1100 + b"N."
    frame = b"\x95" + struct.pack("<Q", len(body)) if framed else b""
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + frame + body)
    with pytest.raises(InputError, match="more than 2,000 items"):
        load_arrays(tmp_path / "a.pkl")


def test_a_frame_longer_than_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.")
    with pytest.raises(InputError, match="cut short"):
        load_arrays(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_what_people_save_is_read_at_every_protocol(tmp_path: Path, protocol: int) -> None:
    """Against pickle's own reader; many members, so that each kind of copy is made once for each byte."""
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {
        "images": rng.integers(0, 255, (40, 9, 9, 3), dtype=np.uint8),
        "turned": np.asfortranarray(rng.normal(size=(7, 5))),
        "names": np.array(["café", "x" * 40]),
        "scalars": [np.float32(1.5), np.int64(-3), np.str_("word"), np.bool_(True)],
        "table": OrderedDict((f"n{i:08d}", list(range(i, i + 600))) for i in range(20)),
        "raw": [bytes(range(256)) * 40, {1, 2}, frozenset("ab"), (1, 2.5, None, True)],
        "shared": [[1, 2]] * 3,
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    loaded = load_arrays(tmp_path / "a.pkl")
    for key in ("images", "turned", "names"):
        assert np.array_equal(loaded[key], content[key])
        assert loaded[key].dtype == content[key].dtype
    for key in ("scalars", "table", "raw", "shared"):
        assert loaded[key] == content[key]
