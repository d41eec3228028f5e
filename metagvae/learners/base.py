"""The contract of a few-shot learner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import EpisodeBatch, InputError
from episodes.precision import autocast_off
from episodes.registry import Registry
from metagvae.encoders.norm import full_precision, norm_policy, task_rows


class Learner(nn.Module, ABC):
    """An encoder with a way to classify queries from a support set, over a leading task axis T.

    Attributes:
        encoder: pictures ``[B, C, H, W]`` to features ``[B, D]``.
        transductive: whether a query's logits depend on the other queries.
        any_way: whether it is made without a number of ways, and answers any; see `answers_any_way`.
        needs_float32: whether bfloat16 spoils its gradient; ``precision: auto`` then takes float32.
        classifies: whether its loss is the cross entropy of its logits; else it has an objective of its own.
        sees_queries: whether its head looks at all queries of an episode together, whatever the encoder's norm policy.
        progress: how much of the training is behind, in [0, 1]; a tensor of one number in a captured step. Whoever
            trains it sets it before each step.

    Example:
        >>> import torch
        >>> from metagvae.encoders.controls import Pixels
        >>> from metagvae.learners import make_learner
        >>> learner = make_learner("prototypes", Pixels(), way=5)
        >>> state = learner.adapt(torch.rand(2, 5, 1, 1, 28, 28))  # once; then ask as often as you like
        >>> learner.predict(state, torch.rand(2, 5, 3, 1, 28, 28)).shape
        torch.Size([2, 15, 5])
    """

    name: str
    any_way: ClassVar[bool] = True
    needs_float32: ClassVar[bool] = False
    classifies: ClassVar[bool] = True
    sees_queries: bool = False
    way: int | None = None  # of a learner with a head of that size
    progress: float | Tensor = 1.0

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    @classmethod
    def answers_any_way(cls, options: Mapping[str, Any]) -> bool:
        """Whether a learner of these options can be asked for other numbers of ways than it is trained for."""
        return cls.any_way

    @property
    def transductive(self) -> bool:
        return self.sees_queries or norm_policy(self.encoder) == "transductive"

    @abstractmethod
    def adapt(self, support: Tensor) -> Any:
        """The state learnt from support pictures ``[T, N, K, C, H, W]``; ask it with `predict`."""

    @abstractmethod
    def predict(self, state: Any, query: Tensor) -> Tensor:
        """Logits ``[T, N * Q, N]`` of query pictures ``[T, N, Q, C, H, W]``."""

    def forward(self, batch: EpisodeBatch) -> tuple[Tensor, Tensor]:
        """Mean cross entropy of the queries (a scalar) and their logits ``[T, N * Q, N]``."""
        logits = self.predict(self.adapt(batch.support), batch.query)
        return episode_loss(logits, batch.query_labels), logits


def episode_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of logits ``[T, M, N]`` against labels ``[T, M]``."""
    return F.cross_entropy(full_precision(logits).flatten(0, 1), labels.flatten())


def shortened(features: Tensor, power: float) -> Tensor:
    """Features z ``[..., D]`` as z / |z|^power: as they are at 0, of length 1 at 1."""
    if not power:
        return features
    lengths: Tensor = features.norm(dim=-1, keepdim=True)
    return features / lengths.clamp(min=1e-6) ** power


def weights_on_features(learner: Learner) -> str:
    """The name of a matrix that a learner has beside its encoder, made for features of one length; empty for none."""
    own = (name for name, weight in learner.named_parameters() if weight.ndim > 1 and not name.startswith("encoder."))
    return next(own, "")


LEARNERS: Registry[type[Learner]] = Registry("learner", "metagvae.learners", given=("encoder", "way"))


@dataclass
class FeatureState:
    """State of a `FeatureLearner` after a support set: its head's state, and the pictures if queries need them."""

    head: Any
    support: Tensor | None


class FeatureLearner(Learner):
    """A learner whose encoder maps each picture to a feature and whose head sees features alone.

    A subclass writes `fit_head` and `ask_head`. With a norm policy under which pictures do not touch each
    other, evaluation embeds each picture once and draws its episodes among the features.

    Args:
        encoder: pictures to features.
        roles: of an episode's pictures in training. ``given``: the first K of a class are its support. ``every``:
            the loss is the mean over as many episodes as it takes for each picture to be support once, all of the
            same pictures, embedded once: more comparisons for the same convolutions, the point that Laenen &
            Bertinetto (On Episodes, Prototypical Networks, and Few-Shot Learning, NeurIPS 2021) make for
            comparing all pairs of a batch. Needs K + Q to be a multiple of K, and a norm that is not ``support``.

    Raises:
        InputError: if ``roles`` is neither, or does not go with the encoder's norm.

    Example:
        >>> import torch
        >>> from metagvae.encoders.controls import Pixels
        >>> from metagvae.learners import FeatureLearner
        >>> class Nearest(FeatureLearner):
        ...     name = "nearest"
        ...     def fit_head(self, support):
        ...         return support.flatten(1, 2)
        ...     def ask_head(self, state, query):
        ...         return -torch.cdist(query.flatten(1, 2), state)
        >>> learner = Nearest(Pixels())
        >>> learner.predict(learner.adapt(torch.rand(2, 5, 1, 1, 8, 8)), torch.rand(2, 5, 3, 1, 8, 8)).shape
        torch.Size([2, 15, 5])
    """

    def __init__(self, encoder: nn.Module, roles: str = "given") -> None:
        super().__init__(encoder)
        if roles not in ("given", "every"):
            raise InputError(f"a learner's roles must be 'given' or 'every'; received {roles!r}.")
        if roles == "every" and norm_policy(encoder) == "support":
            raise InputError(
                "roles 'every' embeds an episode once, and the norm 'support' has other statistics for each choice of "
                "the support; choose roles 'given', or encoder.norm running or group."
            )
        self.roles = roles

    @property
    def embeds_independently(self) -> bool:
        """Whether, in evaluation, a picture's feature depends on that picture alone."""
        return norm_policy(self.encoder) in ("running", "group", "none")

    @abstractmethod
    def fit_head(self, support: Tensor) -> Any:
        """The head's state from support features ``[T, N, K, D]``."""

    @abstractmethod
    def ask_head(self, state: Any, query: Tensor) -> Tensor:
        """Logits ``[T, N * Q, N]`` of query features ``[T, N, Q, D]``."""

    def _fit(self, support: Tensor) -> Any:
        # solves and squared distances lose their digits in half precision
        with autocast_off(support):
            return self.fit_head(support)

    def _ask(self, state: Any, query: Tensor) -> Tensor:
        with autocast_off(query):
            return self.ask_head(state, query)

    def embed(self, support: Tensor, query: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Features ``[T, N, K, D]`` and ``[T, N, Q, D]`` of a task's pictures, in one pass."""
        tasks = len(support)
        parts = [support] if query is None else [support, query]
        rows = torch.cat([part.flatten(1, 2) for part in parts], 1)
        lead = support.shape[1] * support.shape[2]
        with task_rows(self.encoder, tasks, lead):
            features = full_precision(self.encoder(rows.flatten(0, 1))).view(tasks, rows.shape[1], -1)
        embedded = features[:, :lead].reshape(*support.shape[:3], -1)
        if query is None:
            return embedded, None
        return embedded, features[:, lead:].reshape(*query.shape[:3], -1)

    def adapt(self, support: Tensor) -> FeatureState:
        features, _ = self.embed(support)
        return FeatureState(self._fit(features), None if self.embeds_independently else support)

    def predict(self, state: FeatureState, query: Tensor) -> Tensor:
        if state.support is None:
            features, _ = self.embed(query)
            return self._ask(state.head, features)
        # the queries are normalised with the support's statistics (or, transductive, together with it)
        support, asked = self.embed(state.support, query)
        assert asked is not None
        head = self._fit(support) if self.transductive else state.head
        return self._ask(head, asked)

    def embed_batch(self, batch: EpisodeBatch) -> tuple[Tensor, Tensor]:
        """Support features ``[T, N, K, D]`` and query features ``[T, N, Q, D]``, embedded in one pass."""
        if self.embeds_independently:
            # one contiguous block as the gather left it
            shape = batch.images.shape[:3]
            features = full_precision(self.encoder(batch.images.flatten(0, 2))).view(*shape, -1)
            return features[:, :, : batch.shot], features[:, :, batch.shot :]
        support, query = self.embed(batch.support, batch.query)
        assert query is not None
        return support, query

    def forward(self, batch: EpisodeBatch) -> tuple[Tensor, Tensor]:
        """Loss and logits ``[T, N * Q, N]``; support and query are embedded in one pass.

        Raises:
            InputError: if every picture is to be support once and the pictures of a class do not divide so.
        """
        logits = self.logits_by_role(batch, self.takes_every_role)
        return self.loss_by_role(logits, batch), logits[0]

    @property
    def takes_every_role(self) -> bool:
        """Whether every picture of an episode is support once, as ``roles`` asks for in training."""
        return self.roles == "every" and self.training

    def logits_by_role(self, batch: EpisodeBatch, every: bool) -> list[Tensor]:
        """Logits ``[T, N * Q, N]`` of the pictures that are not support, for one or every choice of support.

        Args:
            batch: whose first K pictures of a class are the first choice.
            every: whether each further K of the K + Q pictures of a class are support too.

        Raises:
            InputError: if the pictures of a class do not divide so.
        """
        support, query = self.embed_batch(batch)
        logits = [self._ask(self._fit(support), query)]
        if not every:
            return logits
        shot, features = batch.shot, torch.cat((support, query), 2)
        pictures = features.shape[2]
        if pictures % shot:
            raise InputError(
                f"roles 'every' needs the pictures of a class, shot + query = {pictures}, to be a multiple of shot = "
                f"{shot}; choose a query that is."
            )
        for turn in range(shot, pictures, shot):
            turned = features.roll(-turn, 2)
            logits.append(self._ask(self._fit(turned[:, :, :shot]), turned[:, :, shot:]))
        return logits

    def loss_by_role(self, logits: list[Tensor], batch: EpisodeBatch) -> Tensor:
        """The mean of `episode_loss` over the logits that `logits_by_role` gives of a batch, a scalar."""
        return torch.stack([episode_loss(each, batch.query_labels) for each in logits]).mean()
