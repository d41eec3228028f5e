"""Several trained learners as one: the first one's head on the features of all."""

from __future__ import annotations

import math
from collections.abc import Sequence

from episodes import InputError
from metagvae.encoders.joined import JoinedEncoder
from metagvae.encoders.norm import norm_policy
from metagvae.learners.base import FeatureLearner, Learner, weights_on_features

HEAD = ("distance", "normalise")  # options of a head that change which class is nearest
REFINEMENT = ("scale", "steps", "balanced", "rescalings")  # those of soft k-means that do so too


def join_learners(learners: Sequence[Learner], name: str, votes: Sequence[float] | None = None) -> Learner:
    """The first learner's head on the features of all, side by side; a single learner is returned as it is.

    Args:
        name: of the joined method, for messages.
        votes: as of `JoinedEncoder`.

    Raises:
        InputError: if a learner has no features, or weights of its own for those of one encoder; if they differ in
            kind, in how pictures are normalised or in options of their head; if the votes are not a
            positive one for each.
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
        own = weights_on_features(learner)
        if own:
            raise InputError(
                f"{name} joins features, and the learner '{learner.name}' has weights ({own}) for the features of "
                "one encoder; join runs of prototypes or ridge, or name these as encoders under a head."
            )
        for option in (*HEAD, *(REFINEMENT if learner.name == "soft-k-means" else ())):
            one, other = (getattr(each, option, None) for each in (first, learner))
            if one != other:
                raise InputError(
                    f"{name} joins heads whose {option} is {one!r} and {other!r}, and one head stands on all features; "
                    "join runs of the same learner.options, or name them as encoders, under a head of your own."
                )
    if votes is not None and (len(votes) != len(learners) or not all(0 < vote < math.inf for vote in votes)):
        raise InputError(
            f"{name} joins {len(learners)} encoders, and votes gives each a weight above 0; received "
            f"{' '.join(map(str, votes)) or 'none'}."
        )
    first.encoder = JoinedEncoder([learner.encoder for learner in learners], votes)
    return first
