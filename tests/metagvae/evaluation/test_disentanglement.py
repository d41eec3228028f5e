"""Disentanglement scores: latents of known answers, and the same numbers computed in other ways."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mutual_info_score

from episodes import InputError
from episodes.datasets import make_dataset
from episodes.datasets.factors import Factor
from episodes.datasets.sprites import SpritePictures
from metagvae.cli import main
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.evaluation.codes import Coded, in_use
from metagvae.evaluation.disentanglement import (
    dci,
    factor_vae,
    importance_scores,
    mig,
    sap,
    scores,
    z_diff,
)
from metagvae.report.figures import scores_against_errors
from metagvae.studies.disentangle import Scores, ScoreTable
from metagvae.studies.protocol import Scoring
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.load import save_encoder
from tests.support.commands import pictures

FACTORS = (Factor("kind", 3, False), Factor("a", 6), Factor("b", 10))


def draws(seed: int, count: int = 3000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(f.size, size=count) for f in FACTORS], 1)


def coded(seed: int, kind: str) -> Coded:
    """Latents of known answers: each factor in a unit of its own, all mixed, each twice, or pure noise."""
    values = draws(seed)
    rng = np.random.default_rng(100 + seed)
    units = (values - values.mean(0)) / values.std(0)
    if kind == "mixed":
        turn = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3  # orthogonal
        units = units @ turn
    elif kind == "twice":
        units = np.concatenate([units, -units], 1)
    elif kind == "noise":
        units = rng.normal(size=units.shape)
    return Coded(units + 0.01 * rng.normal(size=units.shape), values, FACTORS)


def pair(kind: str) -> tuple[Coded, Coded]:
    return coded(0, kind), coded(1, kind)


def test_a_unit_per_factor_has_the_best_scores() -> None:
    found = scores(*pair("own"))
    assert found["Z-diff"] == 1
    assert found["FactorVAE"] == 1
    # a line in one dimension cannot single out the middle one of three kinds; an ordered factor it fits exactly
    assert 0.75 < found["SAP"] < 0.95
    assert found["MIG"] > 0.95
    assert min(found[f"DCI {name}"] for name in ("disentanglement", "completeness", "informativeness")) > 0.98


def test_mixed_units_tell_as_much_but_not_one_by_one() -> None:
    own, mixed = scores(*pair("own")), scores(*pair("mixed"))
    for name in ("SAP", "MIG", "DCI disentanglement", "DCI completeness"):
        assert mixed[name] < 0.6 * own[name], name
    assert mixed["DCI informativeness"] > 0.6


def test_what_is_there_twice_has_no_gap() -> None:
    train, test = pair("twice")
    assert sap(train, test) < 0.01
    assert mig(test) < 0.02
    found = dci(train, test)
    assert found.disentanglement > 0.98
    assert factor_vae(train, test) == 1


def test_noise_is_worth_a_guess() -> None:
    train, test = pair("noise")
    assert z_diff(train, test) < 0.45
    assert factor_vae(train, test) < 0.45
    assert sap(train, test) < 0.05
    assert mig(test) < 0.02
    guesses = np.mean([1 / 3, 1 / 6, 1 / 8])
    assert abs(dci(train, test).informativeness - guesses) < 0.05


def test_units_not_in_use_change_no_score() -> None:
    def with_dead(data: Coded) -> Coded:
        dead = 1e-4 * np.random.default_rng(0).normal(size=(len(data.codes), 1))
        return Coded(np.concatenate([dead, data.codes, 0 * dead], 1), data.values, data.factors)

    train, test = (with_dead(data) for data in pair("mixed"))
    assert in_use(train).tolist() == [False, True, True, True, False]
    for score in (factor_vae, sap):
        assert score(train, test) == pytest.approx(score(*pair("mixed")))
    assert mig(test) == pytest.approx(mig(coded(1, "mixed")))
    collapsed = Coded(np.full((100, 2), 0.1), draws(0, 100), FACTORS)
    assert not in_use(collapsed).any()
    three = dci(collapsed, collapsed)
    assert (three.disentanglement, three.completeness) == (0, 0)
    assert factor_vae(collapsed, collapsed) == pytest.approx(1 / 3)
    assert mig(collapsed) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("scale", [0.02, 1e-9, 1e6, (0.02, 1.0, 1.0)])
def test_a_code_in_another_unit_scores_the_same(scale: float | tuple[float, ...]) -> None:
    train, test = pair("own")
    scaled = [Coded(data.codes * np.array(scale), data.values, data.factors) for data in (train, test)]
    expected = scores(train, test)
    for name, value in scores(*scaled).items():
        assert value == pytest.approx(expected[name], abs=0.005), name


def test_a_perfect_code_of_sprites_reaches_what_the_docs_say() -> None:
    pictures = SpritePictures(28)

    def perfect(count: int, seed: int) -> Coded:
        values = pictures.draw(count, seed).numpy()
        return Coded((values - values.mean(0)) / values.std(0), values, pictures.factors)

    train, test = perfect(10_000, 0), perfect(5000, 1)
    assert sap(train, test) == pytest.approx(0.93, abs=0.01)
    assert mig(test) == pytest.approx(0.89, abs=0.01)
    assert factor_vae(train, test) == 1


def test_a_factor_that_nothing_tells_of_is_not_complete() -> None:
    importance = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert importance_scores(importance) == pytest.approx((1, 0.5))
    assert importance_scores(np.zeros((3, 2))) == (0, 0)


def test_sap_of_an_ordered_factor_is_the_gap_of_linear_fits() -> None:
    data = coded(0, "mixed")
    only = Coded(data.codes, data.values[:, 2:], FACTORS[2:])
    y = only.values[:, 0]
    fits = sorted(LinearRegression().fit(x[:, None], y).score(x[:, None], y) for x in only.codes.T)
    assert sap(only, only) == pytest.approx(fits[-1] - fits[-2], abs=1e-9)


def test_mig_is_scikit_learns_information() -> None:
    data = coded(0, "mixed")
    gaps = []
    for column in data.values.T:
        told = []
        for unit in data.codes.T:
            edges = np.linspace(unit.min(), unit.max(), 21)
            told.append(mutual_info_score(np.clip(np.searchsorted(edges, unit, "right") - 1, 0, 19), column))
        told.sort()
        gaps.append((told[-1] - told[-2]) / mutual_info_score(column, column))
    assert mig(data) == pytest.approx(np.mean(gaps), abs=1e-9)


def test_dci_of_known_importance() -> None:
    assert importance_scores(np.eye(3)) == pytest.approx((1, 1))
    assert importance_scores(np.ones((4, 3))) == pytest.approx((0, 0), abs=1e-9)
    importance = np.array([[0.7, 0.1], [0.2, 0.3], [0.1, 0.6]])
    weights = importance.sum(1) / importance.sum()
    disentangled = sum(w * (1 - entropy(row, base=2)) for w, row in zip(weights, importance, strict=True))
    complete = np.mean([1 - entropy(column, base=3) for column in importance.T])
    assert importance_scores(importance) == pytest.approx((disentangled, complete))


def test_z_diff_reads_the_unit_that_does_not_differ() -> None:
    # one factor's unit among noise: the classifier finds this factor, and guesses between the other two
    data = [coded(seed, "noise") for seed in (0, 1)]
    for one in data:
        one.codes[:, 0] = one.values[:, 2]
    assert 0.55 < z_diff(*data) < 0.8


def test_codes_and_values_must_fit() -> None:
    with pytest.raises(InputError, match=r"values \[n, 3\]"):
        Coded(np.zeros((4, 2)), np.zeros((3, 3), dtype=np.int64), FACTORS)


def test_a_table_its_file_and_its_figure(tmp_path: Path) -> None:
    found = scores(*pair("own"))
    rows = [
        Scores("one", "latent", 3, found, 0.25, 0.01),
        Scores("one", "content", 2, {name: value / 2 for name, value in found.items()}, 0.3, 0.01),
    ]
    table = ScoreTable(rows, Scoring())
    assert "25.00 ± 1.00" in table.table()
    table.save(tmp_path / "t.json")
    assert len(json.loads((tmp_path / "t.json").read_text())["rows"]) == 2
    scores_against_errors(rows, tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 1000
    with pytest.raises(InputError, match="few-shot errors"):
        scores_against_errors([Scores("one", "latent", 3, found, None, None)], tmp_path / "f.png")
    with pytest.raises(InputError, match="'warped', 'sprites' or 'factors'"):
        Scoring(pictures="faces")


def test_all_encoders_are_looked_at_before_the_first_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metagvae.studies.disentangle.encode", lambda *_: pytest.fail("the first was measured"))
    root = str(pictures(tmp_path / "pictures" / "test", 12, 3).parent)
    bank = make_dataset("folder", root=root, size=16).load("test")
    encoder = Encoder(EncoderConfig(width=8, latent=6, channels=3, size=16, polarity="light"))
    save_encoder(encoder, tmp_path / "new")
    save_encoder(encoder, tmp_path / "knows", EncoderCard(trained_classes={bank.dataset: bank.class_names}))
    for second, says in (("nosuch", "'nosuch'"), (str(tmp_path / "knows"), "were trained on by")):
        words = ["--data", "folder", "--root", root, "--way", "3", "--encoder", str(tmp_path / "new"), second]
        assert main(["disentangle", *words]) == 2
        assert says in capsys.readouterr().err
