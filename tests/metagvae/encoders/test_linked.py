"""Links between dictionaries, against closed forms and modalities of known relation."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import Ridge as Oracle

from episodes import InputError
from metagvae.encoders.linked import CodeLink, Ridge
from metagvae.encoders.sparse import SparseConfig, SparseEncoder


def _encoder(channels: int, **settings: int) -> SparseEncoder:
    """One whose atoms are single pixels, so that codes are pixels."""
    config = SparseConfig(
        channels=channels, size=8, side=2, stride=2, pad=0, atoms=4 * channels, penalty=1e-4, steps=60, grid=1,
        **settings,  # type: ignore[arg-type]
    )  # fmt: skip
    encoder = SparseEncoder(config).eval()
    encoder.set_dictionary(torch.eye(4 * channels))
    return encoder


def test_ridge_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=generator), torch.randn(60, 3, generator=generator)
    ridge = Ridge(0.7)
    for rows in (slice(0, 13), slice(13, 60)):
        ridge.add(x[rows], y[rows])
    oracle = Oracle(alpha=0.7, fit_intercept=False).fit(x.numpy(), y.numpy())
    assert torch.allclose(ridge.weights().T, torch.from_numpy(oracle.coef_), atol=1e-5)
    with pytest.raises(InputError, match="penalty must be above 0"):
        Ridge(0.0)
    with pytest.raises(InputError, match="no weights before any rows"):
        Ridge(1.0).weights()


def test_a_modality_is_made_from_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(80, 1, 8, 8, generator=generator)
    other = torch.cat([0.5 * images, 1 - images], 1)  # linear in the image's codes, and a constant
    grey, double = _encoder(1), _encoder(2)
    for source, target, given, wanted in ((grey, double, images, other), (double, grey, other, images)):
        link = CodeLink(source, target, penalty=1e-3).fit(source.codes(given[:60]), target.codes(wanted[:60]))
        made = link(given[60:])
        assert made.shape == wanted[60:].shape
        assert (made - wanted[60:]).abs().max() < 0.02
        control = wanted[:60].mean(0) - wanted[60:]
        assert control.abs().max() > 0.2


def test_a_link_looks_around_a_place() -> None:
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(120, 1, 8, 8, generator=generator) > 0.7).float()
    moved = images.roll(2, -1)  # what was in the patch to the left
    moved[..., :2] = 0
    encoder = _encoder(1)
    errors = []
    for reach in (0, 1):
        link = CodeLink(encoder, encoder, reach, penalty=1e-2).fit(
            encoder.codes(images[:90]), encoder.codes(moved[:90])
        )
        errors.append(float((link(images[90:]) - moved[90:])[..., 2:].abs().mean()))
    assert errors[1] < 0.05 < 0.2 < errors[0]


def test_places_must_agree() -> None:
    with pytest.raises(InputError, match="patches at the same places; received 4 and 7"):
        CodeLink(_encoder(1), SparseEncoder(SparseConfig(size=8, side=2, stride=1, pad=0, atoms=4, grid=1)))
