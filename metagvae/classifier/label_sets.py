"""A classifier's sets of labels: its own support and its encoder's card behind `metagvae.classifier.conformal`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from episodes import InputError
from metagvae import zoo
from metagvae.classifier.conformal import SetPrior, Sets
from metagvae.encoders.encoder import Encoder
from metagvae.encoders.vectors import VECTORS

if TYPE_CHECKING:
    from metagvae.classifier.estimator import FewShotClassifier

NONE = "none of these"
FEW = 10  # pictures: of fewer nothing is learnt of how far pictures lie from their classes


def check_sets(classifier: FewShotClassifier, coverage: Any) -> None:
    """Raises `InputError` if a classifier cannot give sets, or ``coverage`` is no share."""
    if not isinstance(coverage, float | np.floating) or not 0 < coverage < 1:
        raise InputError(f"coverage must be between 0 and 1, such as 0.9; received {coverage!r}.")
    if classifier.head != "prototype":
        raise InputError(f"predict_set needs head='prototype'; this classifier has {classifier.head!r}.")


def sets_of(classifier: FewShotClassifier, unlabelled: Tensor | None) -> Sets:
    """The sets of a fitted classifier.

    Args:
        unlabelled: ``[m, D]`` features of further pictures, or None.
    """
    support, source = classifier.support, classifier.source
    prior = None
    if not isinstance(source, Encoder) and source != VECTORS:
        prior = SetPrior.read(zoo.read_card(source).details, classifier.encoder_.features)
    calibration = classifier._prior or classifier.calibration_
    return Sets(support.features, support.labels, support.classes, calibration, prior, unlabelled)


def ranked_labels(classifier: FewShotClassifier, sets: Sets, features: Tensor, coverage: float) -> list[list[Any]]:
    """The set of each picture, likelier labels first and "none of these" last."""
    inside = sets.members(features, coverage)
    order = sets.scores(features).argsort(1)
    none = NONE if classifier.none_label is None else classifier.none_label
    names = classifier.classes_.tolist()
    return [
        [names[at] for at in ranks if row[at]] + ([none] if row[-1] else [])
        for ranks, row in zip(order.tolist(), inside.tolist(), strict=True)
    ]
