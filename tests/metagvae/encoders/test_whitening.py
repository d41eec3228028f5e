"""Whitening: against scikit-learn's discriminant analysis, and what it brings classes it was not learnt on."""

from __future__ import annotations

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from episodes import InputError
from metagvae.encoders.whitening import Whitening, fit_whitening

SIZE, EACH = 12, 40


def drawn(classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Classes with centres of deviation 1 and pictures around them, nine times as wide in three directions."""
    generator = torch.Generator().manual_seed(seed)
    widths = torch.ones(SIZE)
    widths[:3] = 9.0
    turn = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(9))).Q
    centres = torch.randn(classes, SIZE, generator=generator)
    labels = torch.arange(classes).repeat_interleave(EACH)
    noise = torch.randn(classes * EACH, SIZE, generator=generator) * widths
    return (centres[labels] + noise) @ turn + 5.0, labels


def test_all_directions_are_discriminant_analysis() -> None:
    """With all directions but one kept, distances are scikit-learn's Mahalanobis distances, up to one factor."""
    features, labels = drawn(20, 0)
    shrinkage = 0.2
    whitening = fit_whitening(features, labels, SIZE - 1, shrinkage)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=None, store_covariance=True)
    covariance = torch.from_numpy(theirs.fit(features.numpy(), labels.numpy()).covariance_).double()
    covariance = covariance * len(labels) / (len(labels) - 20)  # theirs is not corrected for the means
    covariance = (1 - shrinkage) * covariance + shrinkage * covariance.trace() / SIZE * torch.eye(SIZE)
    apart = (features[:50, None] - features[None, -50:]).double()
    expected = torch.einsum("abi,ij,abj->ab", apart, torch.linalg.inv(covariance), apart)
    found = torch.cdist(whitening(features[:50]).double(), whitening(features[-50:]).double()).square()
    ratio = found / expected
    assert ratio.std() / ratio.mean() < 1e-4


def test_new_classes_are_told_apart_better() -> None:
    """Nearest centres of classes that nothing was learnt of: less than half of the errors."""
    whitening = fit_whitening(*drawn(30, 0), 3, 0.05)
    features, _ = drawn(10, 1)

    def error(values: Tensor) -> float:
        examples, rest = values.view(10, EACH, -1)[:, :5].mean(1), values.view(10, EACH, -1)[:, 5:]
        return float((torch.cdist(rest, examples).argmin(-1) != torch.arange(10)[:, None]).double().mean())

    assert error(whitening(features)) < 0.5 * error(features)
    assert (whitening(features).mean(0).abs() < 1.0).all()  # the centre is taken off


def test_a_new_one_changes_nothing_and_senseless_numbers_are_refused() -> None:
    features, labels = drawn(4, 0)
    assert torch.equal(Whitening(SIZE, 4)(features), features)
    for directions, shrinkage in ((0, 0.5), (SIZE, 0.5), (3, 0.0), (3, 1.5)):
        with pytest.raises(InputError, match="must be in"):
            fit_whitening(features, labels, directions, shrinkage)
    with pytest.raises(InputError, match="two pictures or more"):
        fit_whitening(features, torch.arange(len(labels)), 3, 0.5)
    with pytest.raises(InputError, match="1 to 12 directions"):
        Whitening(SIZE, 13)
