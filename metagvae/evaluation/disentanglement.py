"""Disentanglement scores of a representation, given pictures of known factors. All lie in [0, 1]; more is better.

Each is a function of codes and factor values alone; what is fitted is fitted on one draw of pictures and scored on
another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from metagvae.evaluation.codes import Coded, in_use, merged
from metagvae.evaluation.infomec import infomec
from metagvae.evaluation.irs import irs

BINS = 20


def _sharing(data: Coded, factor: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of ``count`` random pictures that share a random picture's value of a factor."""
    value = data.values[rng.integers(len(data.values)), factor]
    return rng.choice(np.flatnonzero(data.values[:, factor] == value), count)


def z_diff(train: Coded, test: Coded, points: int = 1000, pairs: int = 32, seed: int = 0) -> float:
    """beta-VAE's metric (Higgins et al., ICLR 2017): a linear classifier names the factor that two batches share.

    Its input is the mean absolute difference of ``pairs`` pairs of codes of equal value of one factor.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def draw(data: Coded, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        shared = rng.integers(len(data.factors), size=number)
        features = []
        for factor in shared:
            # each pair has a value of its own
            firsts = rng.integers(len(data.codes), size=pairs)
            column = data.values[:, factor]
            seconds = [rng.choice(np.flatnonzero(column == column[first])) for first in firsts]
            features.append(np.abs(data.codes[firsts] - data.codes[seconds]).mean(0))
        return np.array(features), shared

    rng = np.random.default_rng(seed)
    x, y = draw(train, points, rng)
    tx, ty = draw(test, points // 2, rng)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(classifier.fit(x, y).score(tx, ty))


def factor_vae(
    train: Coded, test: Coded, votes: int = 800, batch: int = 64, seed: int = 0, held_out: bool = True
) -> float:
    """FactorVAE's score (Kim & Mnih, ICML 2018): the unit that varies least names the factor held fixed.

    A unit's variance in a batch is taken relative to its variance over the data; units not in use have no vote.
    Without a unit in use the score is that of guessing.

    Args:
        held_out: count on votes of ``test``; else on those that the majorities were taken from, as the authors do,
            which flatters a model.
    """
    used = np.flatnonzero(in_use(train))
    if not len(used):
        return 1 / len(train.factors)
    scale = train.codes[:, used].var(0)

    def draw(data: Coded, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        fixed = rng.integers(len(data.factors), size=number)
        rows = [data.codes[_sharing(data, factor, batch, rng)][:, used] for factor in fixed]
        return np.array([(r.var(0) / scale).argmin() for r in rows]), fixed

    rng = np.random.default_rng(seed)
    units, fixed = draw(train, votes, rng)
    table = np.zeros((len(used), len(train.factors)))
    np.add.at(table, (units, fixed), 1)
    if held_out:
        units, fixed = draw(test, votes // 2, rng)
    return float((table.argmax(1)[units] == fixed).mean())


def _gap(scores: np.ndarray) -> float:
    """Between the two largest."""
    first, second = np.sort(np.append(scores, 0.0))[::-1][:2]
    return float(first - second)


def sap(train: Coded, test: Coded) -> float:
    """Separated attribute predictability (Kumar, Sattigeri & Balakrishnan, ICLR 2018).

    Per factor, the gap between the two units that predict it best alone: squared correlation for an ordered
    factor, held-out accuracy of a linear support vector machine for kinds. Units not in use score zero.
    """
    from sklearn.svm import LinearSVC

    used = np.flatnonzero(in_use(train))
    gaps = []
    for number, factor in enumerate(train.factors):
        y, ty = train.values[:, number], test.values[:, number]
        scores = np.zeros(train.codes.shape[1])
        for unit in used:
            x, tx = train.codes[:, unit], test.codes[:, unit]
            if factor.ordered:
                scores[unit] = np.corrcoef(tx, ty)[0, 1] ** 2
            else:
                mean, deviation = x.mean(), x.std()
                machine = LinearSVC(C=0.01, class_weight="balanced").fit(((x - mean) / deviation)[:, None], y)
                scores[unit] = machine.score(((tx - mean) / deviation)[:, None], ty)
        gaps.append(_gap(scores))
    return float(np.mean(gaps))


def _information(x: np.ndarray, y: np.ndarray) -> float:
    """Mutual information of two integer columns, in nats."""
    table = np.zeros((x.max() + 1, y.max() + 1))
    np.add.at(table, (x, y), 1 / len(x))
    product = table.sum(1, keepdims=True) * table.sum(0, keepdims=True)
    seen = table > 0
    return float((table[seen] * np.log(table[seen] / product[seen])).sum())


def information_matrix(data: Coded) -> np.ndarray:
    """``[units, factors]``: how much of a factor's entropy a unit tells, in [0, 1]; codes in 20 bins.

    Units not in use tell nothing.
    """
    binned = np.zeros(data.codes.shape, dtype=np.int64)
    for unit in np.flatnonzero(in_use(data)):
        edges = np.histogram_bin_edges(data.codes[:, unit], BINS)
        binned[:, unit] = np.digitize(data.codes[:, unit], edges[1:-1])
    shares = [
        [_information(unit, column) / _information(column, column) for unit in binned.T] for column in data.values.T
    ]
    by_unit: np.ndarray = np.array(shares).T
    return by_unit


def mig(data: Coded) -> float:
    """Mutual information gap (Chen, Li, Grosse & Duvenaud, NeurIPS 2018).

    Per factor, the gap between the two units that tell most about it, in shares of its entropy.
    """
    return float(np.mean([_gap(column) for column in information_matrix(data).T]))


@dataclass(frozen=True)
class DCI:
    """Disentanglement, completeness and informativeness."""

    disentanglement: float
    completeness: float
    informativeness: float


def importance_scores(importance: np.ndarray) -> tuple[float, float]:
    """Disentanglement and completeness of an importance matrix ``[units, factors]`` >= 0.

    One minus the entropy of a unit's shares over factors, weighted by the unit's part of all importance; and one
    minus the entropy of a factor's shares over units. What has no importance at all is certain of nothing: 0.
    """

    def certainty(shares: np.ndarray) -> np.ndarray:
        """One minus the normalised entropy of each row."""
        whole = shares.sum(1, keepdims=True)
        shares = shares / np.where(whole > 0, whole, 1.0)
        terms = np.where(shares > 0, shares * np.log(np.maximum(shares, 1e-300)), 0.0)
        return np.where(whole[:, 0] > 0, 1 + terms.sum(1) / np.log(max(shares.shape[1], 2)), 0.0)

    weights = importance.sum(1) / (importance.sum() or 1.0)
    return float((weights * certainty(importance)).sum()), float(certainty(importance.T).mean())


Blocks = Sequence[Sequence[int]]


def dci(train: Coded, test: Coded) -> DCI:
    """DCI (Eastwood & Williams, ICLR 2018) with gradient-boosted trees.

    Informativeness is the trees' held-out accuracy, averaged over factors.
    """
    importance, accuracy = importances(train, test)
    return DCI(*importance_scores(importance), accuracy)


def block_scores(importance: np.ndarray, blocks: Blocks) -> tuple[float, float]:
    """`importance_scores` of groups of units, each taken as one unit that is as important as all of its own."""
    return importance_scores(np.stack([importance[list(block)].sum(0) for block in blocks]))


def importances(train: Coded, test: Coded, most: int = 2000, trees: int = 20) -> tuple[np.ndarray, float]:
    """How much gradient-boosted trees use each unit for each factor, ``[units, factors]``, and their accuracy.

    An ordered factor of more than 8 values is merged into 8 groups of neighbours; at most ``most`` pictures train the
    trees.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    columns, accuracy = [], []
    # trees split no two numbers that are nearer than 1e-7
    scale = np.where(in_use(train), train.codes.std(0), 1.0)
    for number in range(len(train.factors)):
        y, ty = merged(train, number), merged(test, number)
        model = GradientBoostingClassifier(n_estimators=trees, random_state=0)
        model.fit(train.codes[:most] / scale, y[:most])
        columns.append(model.feature_importances_)
        accuracy.append(model.score(test.codes / scale, ty))
    return np.stack(columns, 1), float(np.mean(accuracy))


SCORES: dict[str, Callable[[Coded, Coded], float]] = {
    "Z-diff": z_diff,
    "FactorVAE": factor_vae,
    "SAP": sap,
    "MIG": lambda train, test: mig(test),
    "IRS": lambda train, test: irs(test),
}


def scores(train: Coded, test: Coded, blocks: Blocks | None = None) -> dict[str, float]:
    """All scores by name; DCI and InfoMEC are three of them each.

    Args:
        blocks: unit numbers of groups, for two scores more: DCI of the groups.
    """
    found = {name: score(train, test) for name, score in SCORES.items()}
    importance, accuracy = importances(train, test)
    disentangled, complete = importance_scores(importance)
    of_information = infomec(train, test)
    found |= {
        "DCI disentanglement": disentangled,
        "DCI completeness": complete,
        "DCI informativeness": accuracy,
        "InfoM": of_information.modularity,
        "InfoE": of_information.explicitness,
        "InfoC": of_information.compactness,
    }
    if blocks is not None:
        disentangled, complete = block_scores(importance, blocks)
        found |= {"DCI disentanglement of blocks": disentangled, "DCI completeness of blocks": complete}
    return found


def shown(score: float) -> str:
    """A score to the digits that hold: the third moves with the pictures drawn, and with float32 against bfloat16."""
    return f"{score:.2f}"
