"""ANIL, almost no inner loop (Raghu, Raghu, Bengio & Vinyals, ICLR 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import EpisodeBatch
from episodes.precision import autocast_off
from metagvae.learners.base import LEARNERS, FeatureLearner, episode_loss, shortened
from metagvae.learners.inner_loop import InnerLoop, InnerLoopLearner, weighted_sum


@LEARNERS.register
class ANIL(InnerLoopLearner, FeatureLearner):
    """MAML whose inner loop adapts the head alone (section 4): the encoder's features are reused as they are.

    So the encoder runs once over support and queries of all tasks. With support features X ``[M, D + 1]`` (a
    column of ones for the bias), one-hot labels Y ``[M, N]`` and the head W ``[N, D + 1]``, an inner step is

        W <- W - alpha / M (softmax(X W^T) - Y)^T X

    the gradient of the mean cross entropy, written out; autograd through it gives the exact outer gradient in
    the encoder and in the head's start.

    Norm policies act as in every `FeatureLearner`: with ``running`` the batch's statistics in training and
    the running averages in evaluation, with ``transductive`` those of a task's support and queries together.

    Args:
        encoder, way: see `InnerLoopLearner`.
        inner_lr, inner_steps, eval_inner_steps, first_order: see `InnerLoop`. With ``first_order`` no outer gradient
            flows through the support pictures.
        second_order_from, rates, every_loss_until, head, normalise: see `InnerLoop`; off by default.

    Example:
        >>> import torch
        >>> from metagvae import Encoder, EncoderConfig
        >>> from metagvae.learners import ANIL
        >>> learner = ANIL(Encoder(EncoderConfig(width=8, latent=6)), way=5).eval()
        >>> learner.predict(learner.adapt(torch.rand(2, 5, 1, 1, 28, 28)), torch.rand(2, 5, 3, 1, 28, 28)).shape
        torch.Size([2, 15, 5])
    """

    name = "anil"

    def __init__(
        self,
        encoder: nn.Module,
        way: int,
        inner_lr: float = 0.1,
        inner_steps: int = 5,
        eval_inner_steps: int | None = None,
        first_order: bool = False,
        second_order_from: float = 0.0,
        rates: str = "fixed",
        every_loss_until: float = 0.0,
        head: str = "learnt",
        normalise: float = 0.0,
    ) -> None:
        cures = second_order_from, rates, every_loss_until, head, None, normalise
        super().__init__(encoder, way, InnerLoop(inner_lr, inner_steps, eval_inner_steps, first_order, *cures))

    def tensors(self) -> int:
        return len(list(self.head.parameters()))

    def fit_head(self, support: Tensor) -> Tensor:
        """Adapted heads ``[T, N, D + 1]``, the bias last."""
        return self._heads(support)[-1]

    def _heads(self, support: Tensor) -> list[Tensor]:
        """The heads after every inner step."""
        tasks, way, shot, _ = support.shape
        start, bias = self.head_start(way)
        weight = torch.cat([start, bias.unsqueeze(1)], 1).expand(tasks, -1, -1)
        design = F.pad(shortened(support.flatten(1, 2), self.options.normalise), (0, 1), value=1.0)
        labels = torch.eye(way, dtype=design.dtype, device=design.device).repeat_interleave(shot, 0)
        found = []
        for step in range(self.steps):
            with self.inner_grad_mode():
                excess = (design @ weight.transpose(1, 2)).softmax(-1) - labels
                slope = excess.transpose(1, 2) @ design
            weight = weight - self._rate(step, way, design) / (way * shot) * self.counted(slope)
            found.append(weight)
        return found

    def _rate(self, step: int, way: int, design: Tensor) -> float | Tensor:
        """The rate of an inner step, of each column ``[D + 1]`` where weight and bias have their own."""
        if self.rates is None:
            return self.options.inner_lr
        weight, bias = (torch.as_tensor(rate) for rate in self.step_rates(step, way))
        return torch.cat([weight.expand(design.shape[-1] - 1), bias.expand(1)])

    def forward(self, batch: EpisodeBatch) -> tuple[Tensor, Tensor]:
        """Loss and logits, see `FeatureLearner`; the loss of every inner step's head where all count."""
        counts = self.loss_weights()
        if counts is None:
            return super().forward(batch)
        support, query = self.embed_batch(batch)
        with autocast_off(query):
            logits = [self.ask_head(head, query) for head in self._heads(support)]
        losses = [episode_loss(said, batch.query_labels) for said in logits]
        return weighted_sum(counts, losses), logits[-1]

    def ask_head(self, state: Tensor, query: Tensor) -> Tensor:
        flat = shortened(query.flatten(1, 2), self.options.normalise)
        return torch.baddbmm(state[..., -1].unsqueeze(1), flat, state[..., :-1].transpose(1, 2))
