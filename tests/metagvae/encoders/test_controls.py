"""Controls: one list that every command reads."""

from __future__ import annotations

import pytest
import torch

from episodes import InputError
from episodes.tokens import TokenBank
from metagvae.encoders.controls import CONTROLS, controls_of, fitted_controls, make_control
from metagvae.report.results import shown
from metagvae.studies.methods import describe
from tests.support.banks import stripes


def texts() -> TokenBank:
    return TokenBank.of_texts([("one", ["abcabcabcabc"]), ("two", ["cbacbacbacba"])], "abc", dataset="letters")


@pytest.mark.parametrize("name", CONTROLS)
def test_each_is_made_named_and_described_by_the_list(name: str) -> None:
    images, banks = torch.rand(5, 1, 16, 16), [stripes(seed=seed) for seed in (0, 1)]
    if CONTROLS[name].texts:
        images, banks = torch.randint(0, 4, (5, 1, 1, 12)) / 255, [texts(), texts()]
    one, other = (make_control(name, bank, seed)(images) for seed, bank in enumerate(banks))
    assert one.shape[0] == 5
    assert one.ndim == 2
    assert CONTROLS[name].fitted == (not torch.equal(one, other))
    assert shown(name) == CONTROLS[name].label
    assert describe(name) == {"method": CONTROLS[name].method}


def test_texts_and_images_have_controls_of_their_own() -> None:
    assert controls_of(stripes()) == ["pixels", "pca", "random"]
    assert controls_of(texts()) == ["ngrams"]
    with pytest.raises(InputError, match=r"the control 'ngrams' is not of the images of .*; take pixels, pca, random"):
        make_control("ngrams", stripes())
    with pytest.raises(InputError, match="the control 'pixels' is not of the texts of letters; take ngrams"):
        make_control("pixels", texts())


def test_what_is_fitted_is_told_from_what_is_not_and_from_encoders() -> None:
    assert fitted_controls(["random", "pixels", "guided-vae-omniglot", "pca"]) == ["random", "pca"]
