"""The encoder chosen by the pictures, and ready vectors in an encoder's place."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestCentroid

from episodes import InputError
from episodes.datasets import make_dataset
from metagvae import FewShotClassifier
from metagvae.classifier import choice
from metagvae.classifier.calibration import Calibration
from metagvae.evaluation.vectors import evaluate_vectors
from tests.support.commands import call, pictures

HAND = ["guided-vae-omniglot", "handwriting"]  # two that are quick, of which one knows digits


def digits(shot: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Support and query images ``[n, 28, 28]`` of ten digits, and their labels."""
    bank, generator = make_dataset("digits").load("test"), np.random.default_rng(seed)
    orders = [
        generator.permutation(np.arange(int(a), int(b)))
        for a, b in zip(bank.offsets[:-1], bank.offsets[1:], strict=True)
    ]
    rows = [np.concatenate([order[:shot] for order in orders]), np.concatenate([order[-20:] for order in orders])]
    labels = bank.labels.numpy()
    return bank.images[rows[0], 0].numpy(), labels[rows[0]], bank.images[rows[1], 0].numpy(), labels[rows[1]]


@pytest.mark.parametrize("shot", [1, 4])
def test_auto_is_the_encoder_that_errs_less(shot: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "candidates", lambda: HAND)
    support, labels, query, truth = digits(shot)
    auto = FewShotClassifier("auto", device="cpu").fit(support, labels)
    alone = {name: FewShotClassifier(name, device="cpu").fit(support, labels).score(query, truth) for name in HAND}
    assert auto.choice_.encoder == max(alone, key=alone.__getitem__) == "handwriting"
    assert auto.score(query, truth) == alone["handwriting"]
    assert auto.choice_.by_look == (shot == 1)
    if shot > 1:
        assert auto.choice_.errors["handwriting"] == auto.left_out_error_
        assert set(auto.choice_.errors) == set(HAND)
    assert "handwriting" in auto.choice_.sentence()


def test_a_loss_is_the_cross_entropy_of_probabilities_left_out() -> None:
    """Two classes, known centres: the loss by hand."""
    features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    labels = torch.tensor([0, 0, 1, 1])
    prior = Calibration(5.0, 2.0)
    error, loss = choice.judged(features, labels, prior)
    calibration = choice.adapt(prior, features, labels, 2)
    expected = []
    for row in range(4):
        own, other = [], []
        for i in range(4):
            if i != row:
                (own if labels[i] == labels[row] else other).append(float(features[i]))
        logits = [
            -((float(features[row]) - np.mean(side)) ** 2 / (1 + 1 / len(side)))
            - calibration.spread * math.log(1 + 1 / len(side))
            for side in (own, other)
        ]
        expected.append(float(F.cross_entropy(torch.tensor([logits]) / calibration.temperature, torch.tensor([0]))))
    assert error == 0
    assert loss == pytest.approx(np.mean(expected), rel=1e-5)


def test_few_images_of_each_class_are_looked_at() -> None:
    labels = torch.arange(30).repeat_interleave(50)
    rows = choice._spread(labels, 100)
    assert torch.bincount(labels[rows]).tolist() == [4] * 10 + [3] * 20
    rows = choice._spread(labels, 40)  # fewer than two of each: whole classes
    assert torch.bincount(labels[rows])[:20].tolist() == [2] * 20
    assert len(rows) == 40


def test_what_cannot_be_chosen_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "candidates", lambda: HAND)
    images = np.random.default_rng(0).random((4, 28, 28))
    with pytest.raises(InputError, match="two classes or more"):
        FewShotClassifier("auto").fit(images, [0, 0, 0, 0])
    with pytest.raises(InputError, match="4 pictures and 3 labels"):
        FewShotClassifier("auto").fit(images, [0, 1, 1])
    with pytest.raises(InputError, match="call fit first"):
        FewShotClassifier("auto").collect(list(images))


def test_without_the_extra_drawings_are_still_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "installed_encoders", lambda: ["warp-protonet-omniglot", "handwriting"])
    assert choice.candidates() == ["handwriting"]


def test_predict_says_which_encoder_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "candidates", lambda: HAND)
    examples, others = pictures(tmp_path / "examples", 3, 4), pictures(tmp_path / "others", 2, 1)
    words = ["predict", str(examples), str(others), "--encoder", "auto", "--out", str(tmp_path / "p.csv")]
    status, out, err = call(capsys, *words)
    assert status == 0, err
    assert "chosen by each image left out" in out
    assert all(name in out for name in HAND)


def gaussians(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(8, 12))
    labels = np.arange(8).repeat(25)
    return centres[labels] + 0.6 * generator.normal(size=(200, 12)), labels


def test_vectors_are_classified_as_the_nearest_centroid_does(tmp_path: Path) -> None:
    vectors, labels = gaussians()
    support = np.arange(200) % 25 < 5
    classifier = FewShotClassifier("vectors", none_label=-1).fit(vectors[support], labels[support])
    oracle = NearestCentroid().fit(vectors[support], labels[support])
    assert (classifier.predict_proba(vectors).argmax(1) == oracle.predict(vectors)).all()
    far = vectors[~support] + 20
    assert (classifier.predict(far) == -1).all()
    assert (classifier.predict(vectors[~support]) == -1).mean() < 0.2
    classifier.save(tmp_path / "saved")
    again = FewShotClassifier.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(vectors), classifier.predict_proba(vectors))
    with pytest.raises(ValueError, match="12 features"):
        again.predict(vectors[:, :5])
    with pytest.raises(ValueError, match="NaN"):
        classifier.predict(vectors * np.nan)


def test_vectors_error_is_that_of_a_plain_loop() -> None:
    """Over all that could be drawn the mean is one number, which a loop with numpy estimates too."""
    vectors, labels = gaussians()
    one, five = evaluate_vectors(vectors, labels, [(5, 1), (5, 5)], episodes=2000)
    generator = np.random.default_rng(1)
    for result in (one, five):
        wrong = []
        for _ in range(1500):
            chosen = generator.permutation(8)[:5]
            rows = [generator.permutation(np.flatnonzero(labels == c))[: result.shot + 15] for c in chosen]
            means = np.stack([vectors[row[: result.shot]].mean(0) for row in rows])
            asked = np.stack([vectors[row[result.shot :]] for row in rows])
            found = ((asked[:, :, None] - means) ** 2).sum(-1).argmin(-1)
            wrong.append((found != np.arange(5)[:, None]).mean())
        assert result.error == pytest.approx(
            np.mean(wrong), abs=4 * (np.std(wrong) / 1500**0.5 + result.half_width / 2)
        )
    assert one.over_classes is not None
    assert one.split_hash != evaluate_vectors(vectors + 1, labels, [(5, 1)], episodes=2)[0].split_hash


@pytest.mark.parametrize(
    ("vectors", "labels", "message"),
    [
        (np.zeros((4, 2, 2)), [0, 0, 1, 1], "expected vectors"),
        (np.zeros((4, 2)), [0, 1], "expected vectors"),
        (np.full((4, 2), np.inf), [0, 0, 1, 1], "NaN or infinity"),
        (np.zeros((4, 2)), [0, 0, 1, 1], "5"),
    ],
)
def test_vectors_that_cannot_be_measured(vectors: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_vectors(vectors, labels)
