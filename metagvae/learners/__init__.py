"""Learners by name. Adding one: a file with a `Learner` subclass, and one line in the table below."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from episodes import InputError
from episodes.untrusted.typed import check_types
from metagvae.learners.anil import ANIL
from metagvae.learners.base import FeatureLearner, Learner
from metagvae.learners.maml import MAML
from metagvae.learners.prototypes import PrototypicalNetwork
from metagvae.learners.ridge import RidgeRegression
from metagvae.learners.statistician import NeuralStatistician

LEARNERS: dict[str, type[Learner]] = {
    cls.name: cls for cls in (PrototypicalNetwork, RidgeRegression, MAML, ANIL, NeuralStatistician)
}


def learner_class(name: str, options: Mapping[str, Any]) -> type[Learner]:
    """The class registered as ``name``, whose options these can be.

    Raises:
        InputError: naming the known learners, or the options that this one takes.
    """
    if name not in LEARNERS:
        raise InputError(f"unknown learner {name[:100]!r}; known: {', '.join(LEARNERS)}.")
    cls = LEARNERS[name]
    allowed = [key for key in inspect.signature(cls).parameters if key not in ("encoder", "way")]
    unknown = [key for key in options if key not in allowed]
    if unknown:
        raise InputError(f"the learner '{name}' has no option {unknown[0]!r}; allowed: {', '.join(allowed)}.")
    check_types(cls, options, f"the learner '{name}': ")
    return cls


def make_learner(name: str, encoder: nn.Module, way: int, **options: Any) -> Learner:
    """The learner registered as ``name`` around ``encoder``.

    Args:
        way: the number of ways it will be trained for; used by learners with a head of that size.

    Raises:
        InputError: as `learner_class`, or if an option is out of its range.
    """
    cls = learner_class(name, options)
    if not cls.any_way:
        options["way"] = way
    return cls(encoder, **options)


__all__ = ["LEARNERS", "FeatureLearner", "Learner", "learner_class", "make_learner"]
