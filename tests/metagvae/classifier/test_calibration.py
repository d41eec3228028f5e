"""Temperatures: recovered where they are known, kept in cards, and honest on classes held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from episodes import ImageBank, InputError
from episodes.datasets import make_dataset
from metagvae import FewShotClassifier
from metagvae.classifier.calibration import (
    Calibration,
    adapt,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    gaussian_logits,
    left_out,
    shortened,
    squared_distances,
)
from metagvae.cli import main
from metagvae.encoders.controls import Pixels
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.load import save_encoder
from metagvae.zoo.trained import read_card
from tests.support.banks import stripes
from tests.support.commands import pictures


def gaussians(classes: int, per_class: int, sigma: float = 0.5, size: int = 8, seed: int = 0):
    """Features of classes that are isotropic Gaussians, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, size, generator=generator)
    labels = torch.arange(classes).repeat_interleave(per_class)
    return centres[labels] + sigma * torch.randn(len(labels), size, generator=generator), labels


def test_left_out_is_leaving_out() -> None:
    features, labels = gaussians(4, 3)
    features, labels = torch.cat([features, features[:1] + 5]), torch.cat([labels, torch.tensor([4])])
    distances, counts, own = left_out(features.double(), labels, 5)
    assert len(own) == 12  # the fifth class has a single picture
    for row in range(12):
        rest = torch.arange(13) != row
        kept, names = features[rest].double(), labels[rest]
        means = torch.stack([kept[names == c].mean(0) for c in range(5)])
        expected = squared_distances(features[row : row + 1], means)[0]
        torch.testing.assert_close(distances[row], expected)
        assert counts[row].tolist() == [float((names == c).sum()) for c in range(5)]


def test_the_temperature_of_gaussian_classes_is_twice_their_variance() -> None:
    """Isotropic Gaussians are the model's own case: 2 sigma^2 per nat, and a spread of D sigma^2."""
    sigma, size = 0.7, 8
    features, labels = gaussians(40, 30, sigma, size)
    prior = Calibration(1.0, 1.0)
    found = adapt(prior, features.double(), labels, 40)
    assert found.temperature == pytest.approx(2 * sigma**2, rel=0.1)
    assert found.spread == pytest.approx(size * sigma**2, rel=0.1)


def test_few_pictures_hardly_move_a_card_and_one_each_does_not() -> None:
    features, labels = gaussians(5, 2)
    prior = Calibration(0.3, 2.0)
    moved = adapt(prior, features.double(), labels, 5)
    assert 0.15 < moved.temperature < 0.6
    assert adapt(prior, features[::2].double(), labels[::2], 5) == prior


def test_a_class_seen_once_is_not_outdone_for_its_noise() -> None:
    """With 1 picture of one class and 30 of the other, errors on both stay alike, unlike nearest prototypes'."""
    sigma, wrong = 1.0, []
    generator = torch.Generator().manual_seed(1)
    calibration = Calibration(2 * sigma**2, 16 * sigma**2)
    for _ in range(400):
        a, b = torch.randn(2, 16, generator=generator)
        rare = (a + sigma * torch.randn(1, 16, generator=generator)).mean(0)
        often = (b + sigma * torch.randn(30, 16, generator=generator)).mean(0)
        queries = torch.stack([a, b]) + sigma * torch.randn(2, 16, generator=generator)
        distances = squared_distances(queries, torch.stack([rare, often]))
        logits = gaussian_logits(distances, torch.tensor([1.0, 30.0]), calibration)
        wrong.append([float(logits[0].argmax() != 0), float(distances[0].argmin() != 0)])
    ours, nearest = np.mean(wrong, 0)
    assert ours < nearest / 2


def test_expected_calibration_error_of_honest_and_of_boastful_probabilities() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 20_000)
    labels = (rng.uniform(size=20_000) > p).astype(int)
    assert expected_calibration_error(np.stack([p, 1 - p], 1), labels) < 0.02
    boast = np.where(p > 0.5, 0.99, 0.01)
    assert expected_calibration_error(np.stack([boast, 1 - boast], 1), labels) == pytest.approx(0.24, abs=0.02)


def test_fit_temperature_follows_many_labels_and_the_prior_without_any() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5000, 4, generator=generator)
    labels = torch.multinomial((logits / 2.0).softmax(1), 1, generator=generator).flatten()
    assert fit_temperature(logits, labels, 0.8) == pytest.approx(2.0, rel=0.1)
    assert fit_temperature(logits[:0], labels[:0], 0.8) == pytest.approx(0.8)


def test_calibrating_an_encoder_lowers_its_calibration_error_on_other_classes() -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(width=8, size=16, latent=8, polarity="light", features=["backbone"])).eval()
    found = calibrate(encoder, stripes(30, 10, seed=1, noise=0.8), 40)
    assert "stripes" in found.fitted_on
    with torch.no_grad():
        features = encoder(stripes(10, 20, seed=2, noise=0.8).images.float() / 255).view(10, 20, -1)
    prototypes, queries = features[:, 0], features[:, 1:].flatten(0, 1)
    labels = np.arange(10).repeat(19)
    errors = []
    for temperature in (found.temperature, found.temperature / 20):
        scale = Calibration(temperature, found.spread)
        logits = gaussian_logits(squared_distances(queries, prototypes), torch.ones(10), scale)
        errors.append(expected_calibration_error(F.softmax(logits, 1).numpy(), labels))
    assert errors[0] < 0.12 < errors[1]


def test_calibrating_leaves_the_callers_encoder_alone() -> None:
    """In training mode its batch statistics would move; in half precision the pictures would not fit it."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(width=8, size=16, latent=8, polarity="light"))
    bank = stripes(8, 8, seed=1)
    expected = calibrate(encoder.eval(), bank, 10)
    held = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert calibrate(encoder.train(), bank, 10) == expected
    assert encoder.training
    assert all(torch.equal(value, held[name]) for name, value in encoder.state_dict().items())
    assert calibrate(encoder.double(), bank, 10).temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert next(encoder.parameters()).dtype == torch.float64


def test_cards_without_or_with_unusable_calibrations() -> None:
    good = Calibration(1.0, 2.0)
    assert Calibration.read({}, ["latent"]) is None
    assert Calibration.read({"calibration": {"latent": good.to_dict()}}, ["latent"]) == good
    assert Calibration.read({"calibration": {"latent": good.to_dict()}}, ["backbone"]) is None
    for bad in ({"temperature": -1, "spread": 1}, {"temperature": "hot", "spread": 1}, {"heat": 1}, [1, 2], "x"):
        with pytest.raises(InputError, match="calibration"):
            Calibration.read({"calibration": {"latent": bad}}, ["latent"])


def scaled_stripes(bank: ImageBank, seed: int = 0) -> ImageBank:
    """Pictures of half the contrast to all of it, each of its own."""
    light = 0.1 + 0.9 * torch.rand(len(bank), 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    return replace(bank, images=(bank.images[:].float() * light).round().to(torch.uint8))


def test_lengths_that_tell_nothing_are_taken_off_and_others_are_kept() -> None:
    """Under light of any strength a picture's class is in the direction of its pixels."""
    plain = stripes(classes=8, per_class=12)
    assert calibrate(Pixels(), plain, 30).normalise == 0
    found = calibrate(Pixels(), scaled_stripes(plain), 30)
    assert found.normalise == 1
    assert found.spread < 4  # squared distances between features of length 1
    assert Calibration.checked(found.to_dict(), "") == found
    with pytest.raises(InputError, match="not of positive numbers"):
        Calibration.checked({**found.to_dict(), "normalise": 2.0}, "a card")


def test_features_at_length_1_are_what_the_classifier_sees() -> None:
    features = torch.randn(5, 7) * torch.tensor([1.0, 10, 0.1, 3, 1e3])[:, None]
    torch.testing.assert_close(shortened(features, 1.0), F.normalize(features, dim=-1))
    assert shortened(features, 0.0) is features
    torch.testing.assert_close(shortened(features, 0.5).norm(dim=-1), features.norm(dim=-1).sqrt())
    images = np.random.default_rng(0).random((4, 28, 28))
    classifier = FewShotClassifier("guided-vae-omniglot", device="cpu")
    plain = classifier.fit(images, [0, 0, 1, 1]).support_
    encoder, card, prior = classifier._open()
    assert prior is not None
    classifier._open = lambda: (encoder, card, replace(prior, normalise=1.0))  # type: ignore[method-assign]
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.fit(images, [0, 0, 1, 1]).support_, plain / lengths, rtol=1e-5)


def test_a_train_split_is_fitted_on_only_by_an_encoder_that_never_saw_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(pictures(tmp_path / "pictures" / "train", 6, 8).parent)
    bank = make_dataset("folder", root=root, size=16).load("train")
    trained = {bank.dataset: bank.class_names[:1]}
    encoder = Encoder(EncoderConfig(width=8, latent=8, channels=3, size=16, polarity="light"))
    save_encoder(encoder, tmp_path / "new")
    save_encoder(encoder, tmp_path / "knows", EncoderCard(trained_classes=trained))
    before = (tmp_path / "knows" / "config.json").read_bytes()
    words = ["folder", "--root", root, "--split", "train"]
    assert main(["calibrate", str(tmp_path / "knows"), *words]) == 2
    assert f"of the train split were trained on by {tmp_path / 'knows'}" in capsys.readouterr().err
    assert (tmp_path / "knows" / "config.json").read_bytes() == before
    assert main(["calibrate", str(tmp_path / "new"), *words, "--rotations", "episode"]) == 2
    assert "choose --rotations none or classes" in capsys.readouterr().err
    assert main(["calibrate", str(tmp_path / "new"), *words]) == 0
    assert "calibration" in read_card(tmp_path / "new").details
