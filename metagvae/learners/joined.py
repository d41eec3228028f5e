"""Several trained learners as one: the first one's head on the features of all."""

from __future__ import annotations

from collections.abc import Sequence

from episodes import InputError
from metagvae.encoders.joined import JoinedEncoder
from metagvae.encoders.norm import norm_policy
from metagvae.learners.base import FeatureLearner, Learner


def join_learners(learners: Sequence[Learner], name: str, equal: bool = False) -> Learner:
    """The first learner's head on the features of all, side by side; a single learner is returned as it is.

    Args:
        name: of the joined method, for messages.
        equal: bring each learner's features to length 1 first.

    Raises:
        InputError: if a learner has no features, or they differ in kind or in how pictures are normalised.
    """
    first = learners[0]
    if len(learners) == 1:
        return first
    for learner in learners:
        if not isinstance(learner, FeatureLearner) or not learner.embeds_independently:
            raise InputError(
                f"{name} joins features, and the learner '{learner.name}' with the norm "
                f"'{norm_policy(learner.encoder)}' has none that belong to one picture alone; join runs of prototypes "
                "or ridge with running statistics."
            )
        if learner.name != first.name:
            raise InputError(
                f"{name} joins the learners '{first.name}' and '{learner.name}'; only runs of the same learner can "
                "be joined."
            )
    first.encoder = JoinedEncoder([learner.encoder for learner in learners], equal)
    return first
