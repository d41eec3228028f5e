"""IRS, InfoMEC, scores of blocks and counterfactual errors: codes of known answers, and other ways to the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor, nn

from episodes import Factors, ImageBank, InputError
from episodes.datasets import make_dataset
from episodes.datasets.factors import Factor
from episodes.datasets.pendulum import PendulumScene
from metagvae.compute.device import Device
from metagvae.evaluation.codes import Coded, encode_halves
from metagvae.evaluation.counterfactual import causes, counterfactual_error
from metagvae.evaluation.disentanglement import block_scores, importance_scores
from metagvae.evaluation.infomec import dominance, explicitness, infomec, information
from metagvae.evaluation.irs import irs, robustness
from metagvae.vae.guided_vae import GuidedVAE
from tests.support.banks import stripes

FACTORS = (Factor("a", 4), Factor("b", 5), Factor("c", 3))


def coded(seed: int, kind: str, count: int = 2000) -> Coded:
    """A unit for each factor; the same turned; noise; or noise in one more unit beside them."""
    rng = np.random.default_rng(seed)
    values = np.stack([rng.integers(f.size, size=count) for f in FACTORS], 1)
    units = (values - values.mean(0)) / values.std(0)
    if kind == "mixed":
        units = units @ (np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3)
    elif kind == "noise":
        units = rng.normal(size=units.shape)
    elif kind == "twice":
        units = np.concatenate([units, 2 * units], 1)
    return Coded(units + 0.01 * rng.normal(size=units.shape), values, FACTORS)


def test_irs_is_one_for_a_unit_per_factor_and_zero_for_noise() -> None:
    assert irs(coded(0, "own")) > 0.97
    assert irs(coded(0, "noise")) < 0.3  # the largest of 2,000 draws lies beyond their 99 % quantile
    assert 0.05 < irs(coded(0, "mixed")) < 0.6


def test_irs_is_what_a_dozen_lines_say() -> None:
    data = coded(3, "mixed", 400)
    codes, most = data.codes, np.abs(data.codes - data.codes.mean(0)).max(0)
    best = np.full(3, -np.inf)
    for number in range(3):
        moved = np.zeros(3)
        for value in range(FACTORS[number].size):
            rows = codes[data.values[:, number] == value]
            away = np.sort(np.abs(rows - rows.mean(0)), 0)
            place = 0.99 * (len(rows) - 1)
            low = int(place)
            above = away[min(low + 1, len(rows) - 1)]
            moved += (away[low] + (place - low) * (above - away[low])) / FACTORS[number].size
        best = np.maximum(best, 1 - moved / most)
    assert irs(data) == pytest.approx(float((best * most).sum() / most.sum()), abs=1e-9)


def test_irs_follows_a_units_scale_by_its_weight_alone_and_leaves_out_what_is_constant() -> None:
    data = coded(0, "mixed")
    entries, weights = robustness(data)
    scaled, heavier = robustness(Coded(data.codes * np.array([10.0, 1, 1]), data.values, FACTORS))
    assert np.allclose(entries, scaled)
    assert np.allclose(weights * [10, 1, 1], heavier)
    constant = Coded(np.concatenate([data.codes, np.full((2000, 1), 3.0)], 1), data.values, FACTORS)
    assert irs(constant) == pytest.approx(irs(data))


def test_infomec_tells_apart_modular_compact_and_explicit() -> None:
    own, twice, mixed, noise = (infomec(coded(0, kind), coded(1, kind)) for kind in ("own", "twice", "mixed", "noise"))
    assert min(own.modularity, own.compactness) > 0.9
    assert own.explicitness > 0.9
    assert twice.modularity > 0.9  # each unit still tells one factor
    assert twice.compactness < 0.6 * own.compactness  # and each factor lies in two
    assert mixed.modularity < 0.6 * own.modularity
    assert mixed.explicitness > 0.9  # a linear classifier undoes the turn
    assert noise.explicitness < 0.02


def test_information_and_dominance_by_hand() -> None:
    data = coded(0, "own")
    told = information(data)
    assert np.allclose(told, np.eye(3), atol=0.1)
    assert dominance(np.array([[1.0, 0, 0], [1, 1, 0]])) == pytest.approx(((1 + 0.5) / 2 - 1 / 3) / (2 / 3))
    assert dominance(np.ones((4, 5))) == pytest.approx(0)
    assert dominance(np.array([[0.0, 0.0], [1.0, 0.0]])) == pytest.approx(0.5)  # what tells nothing counts as equal


def test_explicitness_is_the_held_out_surprise_saved() -> None:
    train, test = coded(0, "mixed"), coded(1, "mixed")
    only = [Coded(data.codes, data.values[:, :1], FACTORS[:1]) for data in (train, test)]
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    mean, deviation = train.codes.mean(0), train.codes.std(0)
    model = LogisticRegression(max_iter=300).fit((train.codes - mean) / deviation, train.values[:, 0])
    surprise = log_loss(test.values[:, 0], model.predict_proba((test.codes - mean) / deviation))
    chances = np.bincount(train.values[:, 0]) / 2000
    seen = np.bincount(test.values[:, 0]) / 2000
    assert explicitness(*only) == pytest.approx(1 - surprise / (entropy(seen) + entropy(seen, chances)), abs=1e-6)


def test_blocks_are_scored_as_one_unit_each() -> None:
    importance = np.array([[4.0, 0, 0], [2, 0, 0], [0, 1, 1], [0, 3, 3]])
    assert block_scores(importance, [[0, 1], [2, 3]]) == importance_scores(np.array([[6.0, 0, 0], [0, 4, 4]]))
    assert block_scores(importance, [[0], [1], [2], [3]]) == importance_scores(importance)


class Told(nn.Module):
    """The numbers that the first pixels hold."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :2]


def test_own_factors_are_grouped_and_halved() -> None:
    bank = stripes(4, 60)
    with pytest.raises(InputError, match="factors are all known; the train split of stripes has none"):
        encode_halves(Told(), bank, 100, 0, Device.choose("cpu"))
    numbers = torch.arange(240).float()
    bank = replace(bank, factors=Factors(torch.stack((numbers, numbers % 3), -1), ("number", "rest")))
    train, test = encode_halves(Told(), bank, 100, 0, Device.choose("cpu"))
    assert (len(train.codes), len(test.codes)) == (100, 50)
    assert [factor.size for factor in train.factors] == [10, 3]
    rows = {tuple(row) for row in train.codes} & {tuple(row) for row in test.codes}
    assert not rows
    counts = np.bincount(np.concatenate([train.values[:, 0], test.values[:, 0]]))
    assert counts.min() > 5


class Oracle(GuidedVAE):
    """Draws counterfactuals by the scene itself: the factors stand in a table by the image's bytes."""

    def __init__(self, bank: ImageBank, wrong: float = 0.0) -> None:
        nn.Module.__init__(self)
        assert bank.factors is not None
        self.table = dict(zip((image.numpy().tobytes() for image in bank.images), bank.factors.values, strict=True))
        self.scene, self.wrong = PendulumScene(bank.image_shape[-1]), wrong

    def known(self, images: Tensor) -> Tensor:
        return torch.stack([self.table[image.numpy().tobytes()] for image in (255 * images).round().to(torch.uint8)])

    def counterfactual(self, images: Tensor, do: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        ((name, given),) = do.items()
        number = list(self.scene.parents).index(name)
        drawn = self.scene.render(self.scene.intervene(self.known(images), {name: self.known(given)[:, number]}))
        return drawn + self.wrong

    def reconstruct(self, images: Tensor) -> Tensor:
        return images + self.wrong


def test_the_scenes_own_counterfactuals_have_no_error() -> None:
    dataset = make_dataset("pendulum", size=16)
    bank = dataset.load("test")
    scene = PendulumScene(16)
    assert causes(scene) == ["angle", "light"]
    found = counterfactual_error(Oracle(bank), scene, bank, count=60)
    assert found.mean == found.rebuilt == 0
    assert min(found.untouched.values()) > 1
    off = counterfactual_error(Oracle(bank, 0.1), scene, bank, count=60)
    assert off.rebuilt == pytest.approx(0.01 * 3 * 16 * 16, rel=1e-3)
    assert off.errors["light"] == pytest.approx(off.rebuilt, rel=1e-3)
    with pytest.raises(InputError, match="all known; in the train split of pendulum they are not"):
        counterfactual_error(Oracle(bank), scene, make_dataset("pendulum", size=16, hidden=["angle"]).load("train"))
