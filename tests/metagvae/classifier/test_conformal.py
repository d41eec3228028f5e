"""Sets of labels: MAPIE on the same scores, coverage over tasks that are alike, what a set may not do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta, gamma
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from torch import Tensor

from episodes import InputError
from metagvae import FewShotClassifier
from metagvae.classifier import conformal
from metagvae.classifier.calibration import Calibration
from metagvae.classifier.conformal import LEVELS, SetPrior, Sets, calibrate_sets, limit, rank_scores

WAY, SIZE = 5, 16
CALIBRATION = Calibration(temperature=2.0, spread=float(SIZE), tail=float(gamma.ppf(0.95, SIZE / 2) / (SIZE / 2)))


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose probabilities are its input."""

    def __init__(self) -> None:
        self.classes_ = np.arange(WAY)
        self.is_fitted_ = True

    def fit(self, X: Any, y: Any) -> Given:
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return X

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(X.argmax(1))


def gaussians(seed: int, classes: int = 40, each: int = 30, apart: float = 2.0) -> tuple[Tensor, Tensor]:
    """Features of Gaussian classes of spread 1 per coordinate, so that `CALIBRATION` is right for them."""
    generator = torch.Generator().manual_seed(seed)
    centres = apart * torch.randn(classes, 1, SIZE, generator=generator)
    features = centres + torch.randn(classes, each, SIZE, generator=generator)
    return features.flatten(0, 1), torch.arange(classes).repeat_interleave(each)


def task(features: Tensor, labels: Tensor, shot: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features of a support ``[N * K, D]``, of queries ``[N * 10, D]`` and of strangers."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(int(labels.max()) + 1, generator=generator)[: 2 * WAY]
    rows = torch.stack([features[labels == c][torch.randperm(30, generator=generator)[: shot + 10]] for c in chosen])
    return rows[:WAY, :shot].flatten(0, 1), rows[:WAY, shot:].flatten(0, 1), rows[WAY:, shot:].flatten(0, 1)


def test_scores_limit_and_sizes_are_mapies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adaptive prediction sets of MAPIE 1 from a calibration set of its own: a random number stands for the depth."""
    classification = pytest.importorskip("mapie.classification", reason="mapie is not installed")
    monkeypatch.setattr(conformal, "WORTH", 1e-9)  # no auxiliary tasks
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.full(WAY, 0.4), 1000)
    labels = np.array([generator.choice(WAY, p=row) for row in probabilities])
    held, asked = slice(0, 99), slice(99, None)
    theirs = classification.SplitConformalClassifier(
        Given(), confidence_level=0.9, conformity_score="aps", random_state=0
    )
    theirs.conformalize(probabilities[held], labels[held])
    _, sets = theirs.predict_set(probabilities[asked], conformity_score_params={"include_last_label": "randomized"})
    inner = theirs._mapie_classifier
    rows, ones = torch.from_numpy(probabilities), torch.ones(1000, dtype=torch.float64)
    at = np.arange(99), labels[held]
    # their random number, out of the score at full depth
    drawn = (rank_scores(rows, ones)[held].numpy()[at] - inner.conformity_scores_.ravel()) / probabilities[held][at]
    assert ((drawn >= 0) & (drawn <= 1)).all()
    own = rank_scores(rows[held], torch.from_numpy(1 - drawn)).numpy()[at]
    np.testing.assert_allclose(own, inner.conformity_scores_.ravel(), atol=1e-9)
    found = limit(np.linspace(0, 1, 50), own, 0.9)
    assert found == pytest.approx(float(inner.quantiles_[0]), abs=1e-6)
    ours = rank_scores(rows[asked], torch.from_numpy(generator.random(901))).numpy() <= found
    assert ours.sum(1).mean() == pytest.approx(sets[:, :, 0].sum(1).mean(), rel=0.04)
    right = np.arange(901), labels[asked]
    assert ours[right].mean() == pytest.approx(sets[:, :, 0][right].mean(), abs=0.03)


def test_the_limit_without_a_prior_is_split_conformals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformal, "WORTH", 1e-9)
    scores = np.random.default_rng(0).random(99)
    assert limit(np.linspace(0, 1, 50), scores, 0.9) == pytest.approx(np.sort(scores)[89], abs=1e-6)
    # of four scores the next is above all of them with probability 1/5: no smaller limit than 1 holds 90 %
    assert limit(np.linspace(0, 1, 50), scores[:4], 0.9) > np.sort(scores[:4])[3]


@pytest.mark.parametrize("worth", [1e-9, 10.0])
@pytest.mark.parametrize("n", [1, 5, 15, 50])
def test_the_limit_covers_the_share_asked_for_and_not_more(
    n: int, worth: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uniform scores, with auxiliary tasks of the same: the next score is below the limit with probability 0.9."""
    monkeypatch.setattr(conformal, "WORTH", worth)
    generator = np.random.default_rng(0)
    limits = [limit(np.linspace(0.005, 0.995, 100), generator.random(n), 0.9) for _ in range(400)]
    assert np.mean(limits) == pytest.approx(0.9, abs=0.015)


def test_the_limit_without_a_support_is_that_of_the_auxiliary_tasks() -> None:
    prior = np.random.default_rng(0).beta(2, 1, 5000)
    assert limit(prior, np.empty(0), 0.9) == pytest.approx(beta.ppf(0.9, 2, 1), abs=0.01)
    assert limit(np.linspace(0, 1, 50), np.ones(5), 0.9) > 0.99


@pytest.mark.parametrize("shot", [1, 3, 5])
@pytest.mark.parametrize("apart", [0.7, 2.0])
def test_sets_hold_the_label_as_often_as_asked(shot: int, apart: float) -> None:
    """Classes hard and easy to tell apart; auxiliary tasks of other classes of the same kind."""
    prior = calibrate_sets(*gaussians(0, apart=apart), CALIBRATION, "gaussians", tasks=40)
    features, labels = gaussians(1, apart=apart)
    own = torch.arange(WAY).repeat_interleave(10)
    right, strange, sizes = [], [], []
    for seed in range(50):
        support, query, others = task(features, labels, shot, seed)
        sets = Sets(support, torch.arange(WAY).repeat_interleave(shot), WAY, CALIBRATION, prior)
        inside = sets.members(query, 0.9)
        right.append(inside.gather(1, own[:, None]).double().mean())
        strange.append(sets.members(others, 0.9)[:, -1].double().mean())
        sizes.append(inside[:, :-1].sum(1).double().mean())
    assert 0.86 < float(torch.stack(right).mean()) < 0.95
    assert float(torch.stack(strange).mean()) > 0.84
    assert float(torch.stack(sizes).mean()) < (1.05 if apart == 2.0 else 3.5)


def test_unlabelled_pictures_tell_a_spread_that_the_card_has_not() -> None:
    features, labels = gaussians(2)
    known = Calibration(CALIBRATION.temperature / 3, CALIBRATION.spread / 3, CALIBRATION.tail)
    own, covered = torch.arange(WAY).repeat_interleave(10), {}
    for told in (False, True):
        found = []
        for seed in range(40):
            support, query, _ = task(features, labels, 1, seed)
            sets = Sets(support, torch.arange(WAY), WAY, known, None, query if told else None)
            found.append(sets.members(query, 0.9).gather(1, own[:, None]).double().mean())
        covered[told] = float(torch.stack(found).mean())
    assert covered[False] < 0.5
    assert 0.8 < covered[True] < 0.97  # the card's still weighs as much as ten of the fifty


def test_sets_of_pictures_asked_together_hold_the_label_as_often_as_asked() -> None:
    """Told the spread, scores scatter less: the auxiliary tasks' quantiles of asking together say how much."""
    prior = calibrate_sets(*gaussians(0), CALIBRATION, "gaussians", tasks=60)
    features, labels = gaussians(1)
    own, covered = torch.arange(WAY).repeat_interleave(10), {}
    for name, known in (("own", prior), ("without", replace(prior, together={}))):
        found = []
        for seed in range(80):
            support, query, _ = task(features, labels, 1, seed)
            sets = Sets(support, torch.arange(WAY), WAY, CALIBRATION, known, query)
            found.append(sets.members(query, 0.9).gather(1, own[:, None]).double().mean())
        covered[name] = float(torch.stack(found).mean())
    assert covered["own"] == pytest.approx(0.9, abs=0.02)
    assert covered["without"] != covered["own"]


def test_a_set_is_never_empty_grows_with_coverage_and_has_no_class_without_a_picture() -> None:
    features, labels = gaussians(3, classes=6)
    kept = labels < 5  # the sixth class is named, and none of its pictures shown
    sets = Sets(features[kept], labels[kept], 6, CALIBRATION)
    few, many = sets.members(features, 0.5), sets.members(features, 0.99)
    assert few.any(1).all()
    assert (many[:, :5] >= few[:, :5]).all()
    assert not few[:, 5].any()
    assert not many[:, 5].any()
    assert few[~kept, 6].all()


def test_uniform_scores_where_probabilities_are_right() -> None:
    """Of Gaussian classes with known means the score of the label is uniform, whatever the overlap."""
    generator = torch.Generator().manual_seed(0)
    for apart in (0.3, 3.0):
        centres = apart * torch.randn(WAY, SIZE, generator=generator).double()
        own = torch.arange(WAY).repeat(400)
        drawn = centres[own] + torch.randn(len(own), SIZE, generator=generator)
        distances = torch.cdist(drawn, centres).square()
        depth = torch.from_numpy(gamma.cdf(distances.amin(1).numpy() / 2, SIZE / 2))
        scores = rank_scores((-distances / 2).softmax(1), depth).gather(1, own[:, None])
        assert float((scores <= 0.9).double().mean()) == pytest.approx(0.9, abs=0.06)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return found.images, found.target


def test_the_classifiers_sets(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    images, labels = digits
    classifier = FewShotClassifier(device="cpu").fit(images[:50], labels[:50])
    sets = classifier.predict_set(images[50:150])
    assert [found[0] for found in sets if found[0] != "none of these"] == [
        label
        for label, found in zip(classifier.predict(images[50:150]), sets, strict=True)
        if found[0] != "none of these"
    ]
    share = np.mean([label in found for label, found in zip(labels[50:150], sets, strict=True)])
    low, high = beta.ppf([0.001, 0.999], 91, 11)
    assert low - 0.08 < share < high + 0.03
    assert sum(map(len, classifier.predict_set(images[50:150], 0.99))) > sum(map(len, sets))
    classifier.save(tmp_path / "saved")
    assert FewShotClassifier.load(tmp_path / "saved").predict_set(images[50:150]) == sets
    noise = np.random.default_rng(0).integers(0, 17, (20, 8, 8)).astype(float)
    assert np.mean(["none of these" in found for found in classifier.predict_set(noise)]) > 0.8


def test_one_picture_each_asks_what_they_are_asked_with(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits
    classifier = FewShotClassifier(device="cpu", none_label=-1).fit(images[:10], labels[:10])
    together, apart = classifier.predict_set(images[10:60]), classifier.predict_set(images[10:60], unlabelled=None)
    assert together == classifier.predict_set(images[10:60], unlabelled=images[10:60])
    assert together != apart
    assert apart[:3] == classifier.predict_set(images[10:13], unlabelled=None)
    assert any(found[-1] == -1 for found in together)


def test_sets_of_ready_vectors() -> None:
    features, labels = gaussians(4, classes=5)
    classifier = FewShotClassifier("vectors").fit(features[::3].numpy(), labels[::3].numpy())
    sets = classifier.predict_set(features[1::3].numpy())
    assert np.mean([label in found for label, found in zip(labels[1::3].tolist(), sets, strict=True)]) > 0.8


def test_what_cannot_be_is_said_in_a_sentence(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits
    classifier = FewShotClassifier(device="cpu").fit(images[:20], labels[:20])
    for wrong in (0, 1.0, "90 %", 90):
        with pytest.raises(InputError, match="coverage must be between 0 and 1"):
            classifier.predict_set(images[:3], wrong)
    with pytest.raises(InputError, match="needs head='prototype'"):
        FewShotClassifier(head="ridge", device="cpu").fit(images[:20], labels[:20]).predict_set(images[:3])
    with pytest.raises(InputError, match="four classes of two pictures"):
        calibrate_sets(torch.rand(6, 4), torch.arange(6) // 2, CALIBRATION, "three classes")
    with pytest.raises(InputError, match="no quantiles"):
        SetPrior.read({"sets": {"backbone": {"genuine": {"1": [0.5]}, "strangers": {}, "fitted_on": ""}}}, ["backbone"])
    falling = [1.0 - level for level in LEVELS]
    with pytest.raises(InputError, match="no quantiles"):
        SetPrior.read({"sets": {"backbone": {"genuine": {"1": falling}}}}, ["backbone"])
