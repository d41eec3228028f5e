"""Figures as files: whole or as they were, and any name in them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from episodes import InputError
from metagvae.report.figure_files import plain, save_figure


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond a hundred bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_full_disk_leaves_the_older_figure(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "made" / f"figure.{ending}"
    figure = Figure(figsize=(1, 1))
    save_figure(figure, path)
    before = path.read_bytes()
    figure.text(0.5, 0.5, plain("a $b $ \udce9"))
    with full_disk(), pytest.raises(InputError, match="no room"):
        save_figure(figure, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    save_figure(figure, path)
    assert path.read_bytes() != before


def test_every_figure_is_saved_so() -> None:
    folder = Path(__file__).parents[3] / "metagvae"
    saving = [path for path in folder.rglob("*.py") if "savefig(path" in path.read_text("utf-8")]
    assert saving == []
