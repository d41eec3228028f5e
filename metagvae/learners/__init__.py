"""Few-shot learners, one file each. A new one is a file with a `Learner` subclass under ``@LEARNERS.register``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from metagvae.learners.anil import ANIL
from metagvae.learners.base import LEARNERS, FeatureLearner, Learner
from metagvae.learners.maml import MAML
from metagvae.learners.prototypes import PrototypicalNetwork
from metagvae.learners.ridge import RidgeRegression
from metagvae.learners.soft_k_means import SoftKMeans
from metagvae.learners.statistician import NeuralStatistician


def learner_class(name: str, options: Mapping[str, Any]) -> type[Learner]:
    """The class registered as ``name``, whose options these can be.

    Raises:
        InputError: naming the known learners, or the options that this one takes.
    """
    return LEARNERS.checked(name, options)


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


__all__ = [
    "ANIL",
    "LEARNERS",
    "MAML",
    "FeatureLearner",
    "Learner",
    "NeuralStatistician",
    "PrototypicalNetwork",
    "RidgeRegression",
    "SoftKMeans",
    "learner_class",
    "make_learner",
]
