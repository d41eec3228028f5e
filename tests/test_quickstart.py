"""The quickstart from its first step to its table, at a hundredth of its length."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "quickstart.py"


@pytest.mark.slow
def test_every_method_gets_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "quickstart"
    monkeypatch.setattr("sys.argv", [str(SCRIPT), "--folder", str(folder), "--steps", "2", "--episodes", "5"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    rows = json.loads((folder / "results.json").read_text())["results"]
    methods = {row["method"] for row in rows}
    assert methods >= {"pixels", "PCA", "random encoder", "plain VAE (frozen)", "Guided-VAE (frozen)"}
    for method in methods:  # two data sets, one and five images a class
        assert sum(row["method"] == method for row in rows) == 4, method
    assert (folder / "figures" / "errors.png").stat().st_size > 0
