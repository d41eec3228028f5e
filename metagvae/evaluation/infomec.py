"""InfoMEC: modularity, explicitness and compactness of a code (Hsu, Dorrell, Whittington, Wu & Finn, NeurIPS 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metagvae.evaluation.codes import Coded, in_use, merged


@dataclass(frozen=True)
class InfoMEC:
    """Whether a unit tells one factor alone, all factors can be read, and a factor is told by one unit alone."""

    modularity: float
    explicitness: float
    compactness: float


def dominance(shares: np.ndarray) -> float:
    """How much of each row's sum its largest entry has, averaged, and scaled so that equal entries have 0.

    Rows without any count as equal ones.
    """
    count = shares.shape[1]
    whole = shares.sum(1)
    largest = np.where(whole > 0, shares.max(1, initial=0.0) / np.where(whole > 0, whole, 1.0), 1 / count)
    return 1.0 if count == 1 else float((largest.mean() - 1 / count) / (1 - 1 / count))


def information(data: Coded, most: int = 1000, neighbours: int = 10) -> np.ndarray:
    """``[units in use, factors]``: information that a unit has on a factor, in shares of its entropy.

    Estimated from nearest neighbours (Ross, PLOS ONE 2014), on the first ``most`` pictures.
    """
    from sklearn.feature_selection import mutual_info_classif
    from sklearn.metrics import mutual_info_score

    codes = data.codes[:most, in_use(data)]
    codes = (codes - codes.mean(0)) / codes.std(0)
    columns = []
    for values in data.values[:most].T:
        told = mutual_info_classif(codes, values, discrete_features=False, n_neighbors=neighbours, random_state=0)
        columns.append(told / mutual_info_score(values, values))
    return np.stack(columns, 1)


def explicitness(train: Coded, test: Coded, most: int = 2000) -> float:
    """How much less a linear classifier of the code is surprised by held-out factors than one that sees no code.

    The mean over the factors, in shares of the latter's surprise; 0 where the code is no help. The authors fit and
    score on the same pictures; here they are others. An ordered factor of more than 8 values is merged to 8 groups.
    """
    from sklearn.linear_model import LogisticRegression

    used = in_use(train)
    if not used.any():
        return 0.0
    mean, deviation = train.codes[:, used].mean(0), train.codes[:, used].std(0)
    x, tx = ((data.codes[:, used] - mean) / deviation for data in (train, test))
    shares = []
    for number in range(len(train.factors)):
        y, ty = merged(train, number), merged(test, number)
        model = LogisticRegression(max_iter=300).fit(x[:most], y[:most])
        known = np.isin(ty, model.classes_)
        place = np.searchsorted(model.classes_, ty[known])
        surprise = -model.predict_log_proba(tx[known])[np.arange(len(place)), place].mean()
        chances = np.bincount(np.searchsorted(model.classes_, y[:most])) / len(y[:most])
        without = -np.log(chances[place]).mean()
        shares.append(max(0.0, 1 - surprise / without))
    return float(np.mean(shares))


def infomec(train: Coded, test: Coded) -> InfoMEC:
    """The three scores; what is fitted is fitted on ``train``. Units not in use are left out."""
    told = information(test)
    if not len(told):
        return InfoMEC(0.0, 0.0, 0.0)
    return InfoMEC(dominance(told), explicitness(train, test), dominance(told.T))
