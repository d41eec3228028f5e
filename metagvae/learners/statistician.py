"""Neural Statistician (Edwards & Storkey, ICLR 2017), guided (Ding et al., CVPR 2020), as a few-shot learner."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from episodes import EpisodeBatch, InputError
from episodes.precision import autocast_off
from metagvae.encoders.encoder import Encoder, Posterior
from metagvae.learners.base import LEARNERS, FeatureLearner, episode_loss
from metagvae.vae.hierarchical import Hierarchy, context_kl, gaussian_kl


@LEARNERS.register
class NeuralStatistician(FeatureLearner):
    """A support set and a query each give a posterior over the context c; the way of smallest KL is the answer.

    Trained on minus the ELBO of each class's pictures in an episode, per picture of the set D:

        ELBO(D) = E_q(c|D) [ sum_x E_q(z|x,c) log p(x|z,c) - KL(q(z|x,c) || p(z|c)) ] - KL(q(c|D) || p(c))

    ``objective: homoencoder`` is that of Hewitt et al. (UAI 2018): c comes from the support pictures alone, the
    query pictures are rebuilt, and the KL of c is divided by the class's size.

    Guidance, after the statistic network, with the class as the signal. c = (excited units, the rest).
    Excitation: a query's posterior over the excited units must be nearest to its own class's among the classes of
    the episode (cross entropy of the learner's own logits); queries are mixed in pairs before the statistic network
    (Mixup, Zhang et al., ICLR 2018). The episode is asked both ways round, the second time with the query pictures
    of a class as its support set, so that statistics of sets of both sizes are learnt. Inhibition: an adversary tells
    the classes of the episode apart by the rest's means, and the encoder confuses it. Predictions of a guided learner
    use the excited units, by either of the two.

    Args:
        encoder: pictures to features, shared by all networks.
        context, latent: units of c and of z.
        hidden: width of the hidden layers.
        decoder_width: feature maps before the decoder's last layer.
        objective: ``statistician`` or ``homoencoder``.
        class_size: pictures per class, for the homoencoder's KL.
        direction: ``support_query`` is KL(q(c|D_k) || q(c|x)), ``query_support`` the other way round.
        generative: weight of minus the ELBO.
        excitation, inhibition: weights of the guidance; 0 for none.
        excited: units of c that are excited; the others are inhibited. Without guidance all are used.
        mixup: alpha of the Beta distribution that pairs are mixed by; 0 for none.

    Example:
        >>> import torch
        >>> from metagvae import Encoder, EncoderConfig
        >>> from metagvae.learners import NeuralStatistician
        >>> learner = NeuralStatistician(Encoder(EncoderConfig(width=8, latent=6))).eval()
        >>> learner.predict(learner.adapt(torch.rand(2, 5, 1, 1, 28, 28)), torch.rand(2, 5, 3, 1, 28, 28)).shape
        torch.Size([2, 15, 5])
    """

    name = "statistician"
    classifies = False

    def __init__(
        self,
        encoder: nn.Module,
        context: int = 64,
        latent: int = 16,
        hidden: int = 128,
        decoder_width: int = 32,
        objective: str = "statistician",
        class_size: int = 20,
        direction: str = "support_query",
        generative: float = 1.0,
        excitation: float = 0.0,
        inhibition: float = 0.0,
        excited: int = 48,
        mixup: float = 0.0,
    ) -> None:
        super().__init__(encoder)
        if objective not in ("statistician", "homoencoder"):
            raise InputError(f"the objective must be 'statistician' or 'homoencoder'; received {objective!r}.")
        if direction not in ("support_query", "query_support"):
            raise InputError(f"the direction must be 'support_query' or 'query_support'; received {direction!r}.")
        if min(generative, excitation, inhibition, mixup) < 0 or class_size < 1:
            raise InputError("statistician needs weights and mixup >= 0 and class_size >= 1.")
        if generative == 0:
            raise InputError("a statistician without its ELBO is a prototypical network; set generative above 0.")
        if inhibition and not 0 < excited < context:
            raise InputError(f"inhibition needs 0 < excited < context = {context}; received {excited}.")
        if excitation and not 0 < excited <= context:
            raise InputError(f"excitation needs 0 < excited <= context = {context}; received {excited}.")
        if not isinstance(encoder, Encoder) or not encoder.has_posterior:
            raise InputError(
                "a statistician rebuilds pictures and needs a metagvae Encoder, which knows their size; received "
                f"{encoder.config.backbone if isinstance(encoder, Encoder) else type(encoder).__name__}."
            )
        config = encoder.config
        self.model = Hierarchy(
            encoder.feature_size, context, latent, config.channels, config.size, hidden, decoder_width
        )
        self.objective, self.class_size, self.direction = objective, class_size, direction
        self.generative, self.excitation, self.inhibition, self.mixup = generative, excitation, inhibition, mixup
        self.excited = excited if excitation or inhibition else context
        self.adversary = nn.Linear(context - excited, hidden) if inhibition else None

    def fit_head(self, support: Tensor) -> Posterior:
        """q(c | D_k) of each way, ``[T, N, context]``."""
        posterior: Posterior = self.model.statistics(support)
        return posterior

    def ask_head(self, state: Posterior, query: Tensor) -> Tensor:
        alone = self.model.statistics(query.flatten(1, 2).unsqueeze(-2))
        return self._logits(state, alone)

    def _logits(self, state: Posterior, alone: Posterior) -> Tensor:
        """Minus the KL over the excited units: ``[T, M, N]`` from ways ``[T, N, ...]`` and queries ``[T, M, ...]``."""
        ways = Posterior(*(part[:, None, :, : self.excited] for part in (state.mean, state.log_var)))
        queries = Posterior(*(part[:, :, None, : self.excited] for part in (alone.mean, alone.log_var)))
        pair = (ways, queries) if self.direction == "support_query" else (queries, ways)
        return -gaussian_kl(*pair).sum(-1)

    def forward(self, batch: EpisodeBatch) -> tuple[Tensor, Tensor]:
        """Minus the ELBO per picture, with the guidance's terms, and logits ``[T, N * Q, N]``."""
        support, query = self.embed_batch(batch)
        with autocast_off(support):
            state = self.fit_head(support)
            alone = self.model.statistics(query.flatten(1, 2).unsqueeze(-2))
            logits = self._logits(state, alone)
            loss = self.generative * self._minus_elbo(batch, support, query)
            if self.excitation:
                both = self._excitation(state, query) + self._excitation(self.fit_head(query), support)
                loss = loss + self.excitation * both / 2
            if self.adversary is not None:
                loss = loss + self._inhibition(state.mean, alone.mean, batch.query_labels)
        return loss, logits

    def _minus_elbo(self, batch: EpisodeBatch, support: Tensor, query: Tensor) -> Tensor:
        """Per picture, in nats."""
        whole = self.objective == "statistician"
        rebuilt = torch.cat((support, query), 2) if whole else query
        images = batch.images if whole else batch.query
        posterior = self.model.statistics((rebuilt if whole else support).flatten(0, 1))
        error, kl = self.model.picture_terms(posterior.sample(), rebuilt.flatten(0, 1), images.flatten(0, 1))
        return error + kl + context_kl(posterior) / (images.shape[2] if whole else self.class_size)

    def _excitation(self, state: Posterior, query: Tensor) -> Tensor:
        """Cross entropy of the pictures ``[T, N, Q, D]``, each alone, among the ways of ``state``."""
        rows = query.flatten(1, 2)
        labels = torch.arange(query.shape[1], device=query.device).repeat_interleave(query.shape[2])
        labels = labels.expand(len(query), -1)
        if not (self.mixup and self.training):
            return episode_loss(self._logits(state, self.model.statistics(rows.unsqueeze(-2))), labels)
        alpha = torch.full((), self.mixup, device=rows.device)
        share = torch.distributions.Beta(alpha, alpha, validate_args=False).sample().to(rows)  # validation waits
        order = torch.randperm(rows.shape[1], device=rows.device)
        mixed = share * rows + (1 - share) * rows[:, order]
        logits = self._logits(state, self.model.statistics(mixed.unsqueeze(-2)))
        return share * episode_loss(logits, labels) + (1 - share) * episode_loss(logits, labels[:, order])

    def _inhibition(self, ways: Tensor, queries: Tensor, labels: Tensor) -> Tensor:
        """The adversary's own loss on detached units, and the encoder's, zero where the adversary is at a loss."""
        assert self.adversary is not None
        rest = torch.cat((ways, queries), 1)[..., self.excited :]

        def told_apart(projected: Tensor) -> Tensor:
            prototypes, rows = projected[:, : ways.shape[1]], projected[:, ways.shape[1] :]
            return -torch.cdist(rows, prototypes).square()

        own = episode_loss(told_apart(self.adversary(rest.detach())), labels)
        still = {name: value.detach() for name, value in self.adversary.named_parameters()}
        logits = told_apart(functional_call(self.adversary, still, (rest,)))
        confusion = -F.log_softmax(logits, -1).mean() - math.log(logits.shape[-1])
        return own + self.inhibition * confusion
