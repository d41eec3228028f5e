"""The disentanglement matrix: which latent unit tells of which known factor."""

from __future__ import annotations

from typing import Any

import numpy as np

from episodes.datasets.factors import WarpedPictures
from metagvae.evaluation.codes import Coded, encode, in_use
from metagvae.evaluation.disentanglement import information_matrix, scores, shown
from metagvae.report.material import Material
from metagvae.report.section import LeftOut, readable

DRAWN = 4000
FITTED, SCORED = 1000, 500  # of them, for the scores: their classifiers take their time
MOST = 64


def matrix_content(run: Material) -> dict[str, Any]:
    """For the template: the share of each factor's entropy that each unit in use tells, and the usual scores.

    The pictures are test characters under known rotation, scale and shift.

    Raises:
        LeftOut: if what the classifier reads has no named units, or there are too few classes.
    """
    encoder = run.encoder
    features = list(encoder.features)
    if not encoder.has_posterior:
        raise LeftOut("This encoder has no latent: its features have no names.")
    if "backbone" in features:
        raise LeftOut(
            f"The classifier reads the backbone's features, {encoder.feature_size} numbers without names; the matrix "
            "is of latent units."
        )
    characters = min(10, run.bank.num_classes)
    if characters < 2:
        raise LeftOut("One class is too few to draw images of known factors from.")
    pictures = WarpedPictures(run.bank.to("cpu"), characters)
    fitted = encode(encoder, pictures, DRAWN, 0, run.evaluator.device)
    scored = encode(encoder, pictures, SCORED, 1, run.evaluator.device)
    some = Coded(fitted.codes[:FITTED], fitted.values[:FITTED], fitted.factors)
    used = np.flatnonzero(in_use(fitted))
    if not len(used):
        raise LeftOut("No latent unit is in use: all images have the same code.")
    told = information_matrix(fitted)
    columns = [
        unit for name in features for unit in (range(told.shape[0]) if name == "latent" else encoder.units[name])
    ]
    most = max(float(told.max()), 1e-9)
    groups = {unit: group for group, units in encoder.units.items() for unit in units}
    rows = [
        {
            "unit": columns[place] if len(columns) == len(told) else place,
            "group": readable(groups.get(columns[place], "")),
            "cells": [{"value": f"{100 * value:.0f}", "shade": round(float(value) / most, 2)} for value in told[place]],
        }
        for place in used[:MOST]
    ]
    return {
        "factors": [f.name for f in pictures.factors],
        "values": [f.size for f in pictures.factors],
        "rows": rows,
        "idle": int(len(told) - len(used)),
        "cut": max(0, len(used) - MOST),
        "scores": [(name, shown(value)) for name, value in scores(some, scored).items()],
        "characters": characters,
        "drawn": DRAWN,
        "fitted": FITTED,
    }
