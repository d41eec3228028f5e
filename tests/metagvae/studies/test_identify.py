"""Sources of a mixture found by contrast, with the controls that must not find them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from metagvae.studies.identify import Code, Learning, _single, learn, linear_score, score
from metagvae.studies.mixtures import Mixture
from tests.support.commands import call

QUICK = Learning(widths=(16,), restarts=2, steps=400, batch=256)


def test_a_linear_mixture_is_undone_as_fast_ica_does() -> None:
    mixture = Mixture(sources=3, segments=20, layers=1)
    known, fresh = (_single(mixture.draw(4000, seed)) for seed in (0, 1))
    learning = Learning(widths=(0,), restarts=2, steps=1000, batch=512, lr=0.03)
    found = min(learn(known.x, known.segments, 0, learning), key=lambda one: one.contrast)
    assert score(found.code, known, fresh) > 0.99
    assert linear_score(known, fresh, 0) > 0.85  # without the segments, from the mixture alone
    torch.manual_seed(0)
    assert score(Code(known.x, 0), known, fresh) < 0.9


def test_shuffled_segments_teach_nothing() -> None:
    mixture = Mixture(sources=3, segments=10, layers=2)
    known = _single(mixture.draw(4000, 0))
    shuffled = known.segments[torch.randperm(4000, generator=torch.Generator().manual_seed(0))]
    fooled = min(one.contrast for one in learn(known.x, shuffled, 16, QUICK))
    assert abs(fooled - math.log(10)) < 0.05
    told = min(one.contrast for one in learn(known.x, known.segments, 16, QUICK))
    assert told < fooled - 0.5


def test_restarts_side_by_side_are_restarts_one_by_one() -> None:
    """The first of two trainings is the same as alone: neither feels the other."""
    known = _single(Mixture(sources=3, segments=10, layers=2).draw(1000, 0))
    settings = {"widths": (8,), "steps": 40, "batch": 64}
    two = learn(known.x, known.segments, 8, Learning(**settings, restarts=2))
    assert two[0].contrast != two[1].contrast
    again = learn(known.x, known.segments, 8, Learning(**settings, restarts=2))
    assert [one.contrast for one in again] == [one.contrast for one in two]
    assert isinstance(two[0].code, Code)


def test_the_command_writes_its_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--sources", "2", "--segments", "4", "--layers", "2", "--mixtures", "2", "--samples", "200", "400"]
    quick = ["--width", "8", "--restarts", "1", "--steps", "20"]
    out, figure = tmp_path / "curve.json", tmp_path / "curve.png"
    status, said, err = call(
        capsys, "identify", "mixtures", *words, *quick, "--json", str(out), "--figure", str(figure)
    )
    assert status == 0, err
    content = json.loads(out.read_text())
    assert [row["rows"] for row in content["rows"]] == ["200", "400"]
    assert len(content["findings"]) == 4
    assert "FastICA" in said
    assert figure.stat().st_size > 1000
    one = ["--sources", "2", "--segments", "4", "--layers", "2", "--mixtures", "1", "--samples", "200", "200"]
    assert call(capsys, "identify", "mixtures", *one, *quick, "--json", str(out))[0] == 0
    content = json.loads(out.read_text())  # one number of rows, and of one mixture no interval
    assert len(content["findings"]) == 1
    assert "±" not in content["rows"][0]["MCC"]
    assert "rows, one mixture;" in content["about"]
    for bad, message in (
        (["--samples", "10"], "needs 40 rows or more"),
        (["--seed", "-1"], "--seed"),
        (["--base", "cauchy"], "'gaussian' or 'laplace'"),
        (["--restarts", "0"], "1 or more"),
    ):
        line = [*words[:-1], *quick]
        options = {**dict(zip(line[::2], line[1::2], strict=True)), bad[0]: bad[1]}
        status, said, err = call(capsys, "identify", "mixtures", *(word for pair in options.items() for word in pair))
        assert (status, said) == (2, "")
        assert message in err
        assert err.count("\n") == 1
