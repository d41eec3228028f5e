"""The contract of a prior."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from episodes import InputError
from episodes.registry import Registry
from metagvae.encoders.encoder import Posterior

Labels = Mapping[str, Tensor]


class Prior(nn.Module, ABC):
    """p(z), or p(z | labels). A subclass's constructor takes a `GuidanceContext`, then its options.

    ``labels`` are int64 ``[B]`` by attribute name, as the guidances get them, and float32 ``[B]`` by factor name, NaN
    where unknown. They are empty where nobody knows them, such as in a report on new classes, and a prior must answer
    then too.

    Attributes:
        progress: how much of the training is behind, in [0, 1]; a tensor of one number in a captured step. It is set
            for the time of a training step, and is 1 outside of training.
        reach: how far from 0 a unit is moved in figures; most draws lie within.
        fits: how many training images' posterior means `fit` takes once the VAE is trained; 0 for none.

    Example:
        >>> import torch
        >>> from torch.distributions import Laplace
        >>> from metagvae import Decoder, Encoder, EncoderConfig, GuidedVAE
        >>> from metagvae.vae.priors import Prior
        >>> class Heavy(Prior):
        ...     name = "heavy"
        ...     def kl(self, posterior, z, labels):
        ...         return posterior.log_prob(z) - Laplace(0.0, 1.0).log_prob(z).sum(-1)
        ...     def sample(self, count, labels):
        ...         return Laplace(0.0, 1.0).sample((count, 6))
        >>> vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=6)), Decoder(6, 1, 28), prior=Heavy())
        >>> sorted(vae.losses(torch.rand(3, 1, 28, 28)))
        ['kl', 'reconstruction']
    """

    name: ClassVar[str]
    reach: ClassVar[float] = 2.5
    fits: ClassVar[int] = 0
    progress: float | Tensor = 1.0

    @classmethod
    def owned_units(cls, **options: Any) -> dict[str, int]:
        """How many latent units of which group this prior asks for."""
        return {}

    @abstractmethod
    def kl(self, posterior: Posterior, z: Tensor, labels: Labels) -> Tensor:
        """KL(q(z|x) || p(z)) of each image, ``[B]``, in nats.

        Args:
            posterior: q(z|x), ``[B, latent]``.
            z: ``[B, latent]``, one reparametrised draw from it. A prior without a formula takes the estimate
                ``posterior.log_prob(z)`` less its own log p(z).
        """

    def kl_per_unit(self, posterior: Posterior, z: Tensor, labels: Labels) -> Tensor | None:
        """The part of each unit in `kl`, ``[B, latent]``; None if the prior has no such parts."""
        return None

    def log_prob(self, z: Tensor, labels: Labels) -> Tensor:
        """log p(z) of latents ``[B, latent]``, ``[B]``, in nats: what chains and likelihoods ask for.

        Raises:
            InputError: if this prior does not say it.
        """
        raise InputError(
            f"the prior '{self.name}' has no density, which short-run inference and `metagvae likelihood` need; write "
            "its log_prob(z, labels), or choose another prior."
        )

    @abstractmethod
    def sample(self, count: int, labels: Labels) -> Tensor:
        """Draws ``[count, latent]`` from torch's generator, on the prior's device; labels are ``[count]`` each."""

    def check_images(self, count: int) -> None:
        """Raises `InputError`, before any training, if `fit` cannot learn from so many images."""

    def fit(self, means: Tensor) -> None:
        """Learns from the trained VAE's posterior means ``[N, latent]`` of training images; nothing by default."""

    def settings(self) -> dict[str, tuple[float, float]]:
        """The smallest and the largest number that each factor can be set to by `intervene`; none without causes."""
        return {}

    def intervene(self, z: Tensor, do: Mapping[str, Tensor]) -> Tensor:
        """The latents ``[B, latent]`` that these would have been, had the factors in ``do`` been set; see `CausalFlow`.

        Raises:
            InputError: of a prior that knows no causes.
        """
        raise InputError(
            f"the prior {self.name!r} knows no causes, so nothing can be done to {', '.join(do)[:200]}. Pretrain with "
            "vae.prior: {name: causal_flow, graph: ...}."
        )


PRIORS: Registry[type[Prior]] = Registry("prior", "metagvae.vae.priors", given=("context",))
