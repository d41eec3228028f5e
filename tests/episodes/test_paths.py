"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from episodes import InputError
from episodes.paths import all_different, expanded
from metagvae.report.write import write_report


def test_a_folder_is_the_same_however_it_is_spelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(name).mkdir()
    Path("link").symlink_to("a")
    assert all_different(["a", "b", "no-folder", "./no-folder", "hub:a/b", "x" * 999])
    for other in ("a", "./a", "b/../a", str(tmp_path / "a"), "link"):
        assert not all_different(["a", "b", other])
        with pytest.raises(InputError, match="each named once"):
            write_report(["a", other])


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(InputError, match="a path is empty"):
        expanded("")
    assert expanded(".") == Path()
