"""The look of images: numbers known by hand, a Gaussian as scipy has it, and which encoder's images they are like."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, multivariate_normal
from sklearn.datasets import load_digits, load_sample_images

from episodes import InputError
from metagvae import FewShotClassifier
from metagvae.classifier import choice
from metagvae.classifier.choice import chosen_by_look
from metagvae.classifier.inputs import collect
from metagvae.classifier.look import NUMBERS, SIDE, Look, looks


def bar(width: int, value: float = 1.0) -> torch.Tensor:
    """A level bar across a black image, from edge to edge but for two pixels on each side."""
    images = torch.zeros(1, 3, SIDE, SIDE)
    images[:, :, 10 : 10 + width, 2:-2] = value
    return images


@pytest.mark.parametrize("width", [1, 3, 8])
def test_the_numbers_of_a_bar(width: int) -> None:
    length, area = SIDE - 4, width * (SIDE - 4)
    found = dict(zip(NUMBERS, looks(bar(width))[0].tolist(), strict=True))
    ground = 0.02 + 0.96 * (1 - area / SIDE**2)
    assert found["colour"] == pytest.approx(math.log(0.02))
    assert found["ink"] == pytest.approx(math.log(area / SIDE**2 + 0.01), rel=1e-5)
    assert found["ground"] == pytest.approx(math.log(ground / (1 - ground)), rel=1e-4)
    assert found["width"] == pytest.approx(math.log(area / (2 * length + 2 * width) + 0.1), rel=1e-5)
    assert found["between"] == pytest.approx(math.log(0.02 / 0.98), rel=1e-4)


def test_paper_and_ink_may_change_places_and_colour_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 1, SIDE, SIDE, generator=generator).expand(-1, 3, -1, -1)
    torch.testing.assert_close(looks(images), looks(1 - images), atol=1e-4, rtol=1e-4)
    red = bar(3)
    red[:, 1:] = 0
    assert looks(red)[0, 0] > looks(bar(3))[0, 0] + 1


def test_surprise_is_scipys() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(300, 3, SIDE, SIDE, generator=generator) * torch.rand(300, 1, 1, 1, generator=generator)
    look = Look.of(images, "noise")
    found = looks(images[:20])
    expected = -multivariate_normal(look.mean, look.covariance).logpdf(found.double().numpy())
    np.testing.assert_allclose(look.surprise(found).numpy(), expected, rtol=1e-6)
    grey = looks(images[:20].mean(1, keepdim=True).expand(-1, 3, -1, -1))
    expected = -multivariate_normal(look.mean[1:], np.array(look.covariance)[1:, 1:]).logpdf(
        grey[:, 1:].double().numpy()
    )
    np.testing.assert_allclose(look.surprise(grey).numpy(), expected, rtol=1e-6)
    assert Look.read({"look": look.to_dict()}) == look
    assert Look.read({}) is None


def test_alike_is_a_probability_that_is_uniform_where_images_are() -> None:
    """Hotelling's statistic of sets drawn from the Gaussian itself; no set of another mean."""
    look = Look([-2.0, -1.0, 0.5, 0.2, 1.0], (0.2 * np.eye(5) + 0.1).tolist(), "a Gaussian")
    generator = np.random.default_rng(0)
    drawn = torch.from_numpy(generator.multivariate_normal(look.mean, look.covariance, (300, 8)))
    found = [look.alike(rows) for rows in drawn]
    assert kstest(found, "uniform").pvalue > 0.01
    assert max(look.alike(rows + torch.tensor([0, 1.5, 0, 0, 0])) for rows in drawn) < 0.05


@pytest.mark.parametrize(
    "stored",
    [
        {"mean": [0.0] * 4, "covariance": np.eye(5).tolist()},
        {"mean": [0.0] * 5, "covariance": (-np.eye(5)).tolist()},
        {"mean": [float("nan")] * 5, "covariance": np.eye(5).tolist()},
        {"mean": ["x"] * 5, "covariance": np.eye(5).tolist()},
        {"mean": [0.0] * 5},
        [1, 2],
        "x",
    ],
)
def test_a_card_with_another_thing_for_a_look_is_refused(stored: object) -> None:
    with pytest.raises(InputError, match="no Gaussian of five numbers"):
        Look.read({"look": stored})


def test_drawings_and_photographs_are_told_apart_whatever_their_polarity_and_colour() -> None:
    """Digits are drawings; the pieces of scikit-learn's two photographs are not, in colour or grey."""
    pieces = [
        image[top : top + 200, left : left + 200]
        for image in load_sample_images().images
        for top in (0, 200)
        for left in (0, 200, 400)
    ]
    grey = [piece.mean(-1).astype(np.uint8) for piece in pieces]
    digits = (load_digits().images[:10] * 15).astype(np.uint8)
    known = choice.known_looks()
    assert {"handwriting", "warp-protonet-omniglot"} <= set(known)
    for images, drawn in ((digits, True), (255 - digits, True), (pieces, False), (grey, False)):
        taken = collect(list(images), 3, SIDE)
        found = chosen_by_look(taken.on(taken.scale(None, False)))
        assert found.by_look
        if "photos" in known:
            assert (found.encoder == "photos") != drawn
        assert found.encoder in found.sentence()


def test_auto_with_one_image_a_class_looks_and_embeds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "judged", None)  # would fail
    digits = load_digits()
    classifier = FewShotClassifier("auto", device="cpu").fit(digits.images[:10], digits.target[:10])
    assert classifier.choice_.encoder == "handwriting"
    assert classifier.choice_.errors == {}
    rows = FewShotClassifier("auto", device="cpu").fit(digits.data[:10], digits.target[:10])
    assert rows.choice_ == classifier.choice_
