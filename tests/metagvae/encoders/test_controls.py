"""Controls: one list that every command reads."""

from __future__ import annotations

import pytest
import torch

from metagvae.encoders.controls import CONTROLS, fitted_controls, make_control
from metagvae.report.results import shown
from metagvae.studies.methods import describe
from tests.support.banks import stripes


@pytest.mark.parametrize("name", CONTROLS)
def test_each_is_made_named_and_described_by_the_list(name: str) -> None:
    images = torch.rand(5, 1, 16, 16)
    one, other = (make_control(name, stripes(seed=seed), seed)(images) for seed in (0, 1))
    assert one.shape[0] == 5
    assert one.ndim == 2
    assert CONTROLS[name].fitted == (not torch.equal(one, other))
    assert shown(name) == CONTROLS[name].label
    assert describe(name) == {"method": CONTROLS[name].method}


def test_what_is_fitted_is_told_from_what_is_not_and_from_encoders() -> None:
    assert fitted_controls(["random", "pixels", "guided-vae-omniglot", "pca"]) == ["random", "pca"]
