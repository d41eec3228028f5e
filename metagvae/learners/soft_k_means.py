"""Prototypes refined by the queries: soft k-means over all tasks of a batch at once."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from episodes import InputError
from metagvae.learners.base import LEARNERS, shortened
from metagvae.learners.prototypes import PrototypicalNetwork

_FAINT = 1e-9  # the least share of a query that a way gets, so that every way can be scaled to its part


class RefinedState(NamedTuple):
    """Prototypes ``[T, N, D]`` of the support alone, and K, the pictures that each is the mean of."""

    prototypes: Tensor
    shot: int


@LEARNERS.register
class SoftKMeans(PrototypicalNetwork):
    """Prototypes that the queries move towards themselves, each by its probabilities; transductive.

    The refined prototype of a way is the mean of its support features and of all query features, weighted by the
    probability of each query to be of that way; probabilities and prototypes are found in turn (Ren et al.,
    Meta-Learning for Semi-Supervised Few-Shot Classification, ICLR 2018, eq. 3 and 4, the queries being the unlabelled
    pictures).

    With ``balanced`` the probabilities are scaled to give every way as many queries (Sinkhorn's algorithm, as in Hu,
    Gripon & Pateux, Leveraging the Feature Distribution in Transfer-based Few-Shot Learning, 2020, eq. 3). Episodes
    have as many queries of each way; a user's pictures seldom do, so its error is a lower bound for them.

    Args:
        encoder: pictures to features.
        steps: how many times the prototypes are refined.
        balanced: whether as many queries of each way are assumed.
        rescalings: Sinkhorn's steps, where balanced.
        distance, scale, normalise, roles: see `PrototypicalNetwork`.

    Raises:
        InputError: if an option is out of its range.

    Example:
        >>> import torch
        >>> from metagvae.encoders.controls import Pixels
        >>> from metagvae.learners import SoftKMeans
        >>> learner = SoftKMeans(Pixels())
        >>> learner.transductive
        True
        >>> learner.predict(learner.adapt(torch.rand(2, 5, 1, 1, 8, 8)), torch.rand(2, 5, 3, 1, 8, 8)).shape
        torch.Size([2, 15, 5])
    """

    name = "soft-k-means"
    sees_queries = True

    def __init__(
        self,
        encoder: nn.Module,
        steps: int = 5,
        balanced: bool = False,
        rescalings: int = 10,
        distance: str = "euclidean",
        scale: float | None = None,
        normalise: float = 0.0,
        roles: str = "given",
    ) -> None:
        super().__init__(encoder, distance, scale, normalise, roles)
        if not 1 <= steps <= 1000 or not 1 <= rescalings <= 1000:
            raise InputError(
                f"soft-k-means' steps and rescalings must be between 1 and 1000; received {steps} and {rescalings}."
            )
        self.steps, self.balanced, self.rescalings = steps, balanced, rescalings

    def fit_head(self, support: Tensor) -> Any:
        return RefinedState(super().fit_head(support), support.shape[2])

    def ask_head(self, state: Any, query: Tensor) -> Tensor:
        first, shot = state
        flat = shortened(query.flatten(1, 2), self.normalise)
        prototypes = first
        for _ in range(self.steps):
            assigned = self._logits(prototypes, query).softmax(-1)
            prototypes = (shot * first + assigned.mT @ flat) / (shot + assigned.sum(1)).unsqueeze(-1)
        return self._logits(prototypes, query)

    def _logits(self, prototypes: Tensor, query: Tensor) -> Tensor:
        logits = super().ask_head(prototypes, query)
        if not self.balanced:
            return logits
        shares = (logits - logits.amax(-1, keepdim=True)).exp().clamp(min=_FAINT)
        each = shares.shape[1] / shares.shape[2]
        of_way = shares.new_ones(len(shares), shares.shape[2], 1)
        for _ in range(self.rescalings):
            of_way = each / (shares.mT @ (1 / (shares @ of_way)))
        return (shares * of_way.mT).log()
