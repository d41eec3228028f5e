"""Several encoders as one: their features of a picture side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from episodes import InputError
from metagvae.encoders.norm import norm_policy
from metagvae.learners import FeatureLearner, Learner

SIGN = "+"


def parts(name: str) -> list[str]:
    """The runs or encoders that a name such as ``runs/a-seed0+runs/a-seed1`` joins; a path that exists is one."""
    if SIGN not in name or Path(name).expanduser().exists():
        return [name]
    found = name.split(SIGN)
    if "" in found or len(set(found)) < len(found):
        raise InputError(f"{name!r} must join different names by {SIGN!r}, such as runs/a-seed0+runs/a-seed1.")
    return found


def joined_name(name: str) -> str:
    """What a joined method is called in results: the last folder of each part."""
    return SIGN.join(Path(part).name for part in parts(name))


class JoinedEncoder(nn.Module):
    """Encoders of the same pictures whose features stand side by side.

    Squared distances of such features are the sums of each encoder's own, so nearest prototypes let the encoders
    vote with their distances: an ensemble of few-shot learners, as in Dvornik, Schmid & Mairal (Diversity with
    Cooperation, ICCV 2019), averaged before the softmax and without their training.

    Args:
        encoders: at least one; pictures ``[B, C, H, W]`` to features ``[B, D_i]``.
    """

    def __init__(self, encoders: Sequence[nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    @property
    def features(self) -> list[str]:
        return getattr(self.encoders[0], "features", ["all"])

    def forward(self, images: Tensor) -> Tensor:
        """Features ``[B, sum of D_i]``."""
        return torch.cat([encoder(images) for encoder in self.encoders], -1)


def join_learners(learners: Sequence[Learner], name: str) -> Learner:
    """The first learner's head on the features of all, side by side; a single learner is returned as it is.

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
    first.encoder = JoinedEncoder([learner.encoder for learner in learners])
    return first
