"""GuidedVAE: an encoder, a decoder and any list of guidances. A plain VAE is the empty list."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError
from metagvae.encoders.encoder import Encoder, Posterior
from metagvae.encoders.norm import full_precision
from metagvae.guidance.base import Guidance, GuidanceInputs, Views


class StandardNormal(nn.Module):
    """The prior N(0, I)."""

    def kl(self, posterior: Posterior, z: Tensor) -> Tensor:
        """KL(q(z|x) || p(z)) per picture and unit, ``[B, latent]``, in nats; ``z`` is for priors without a formula."""
        mean, log_var = posterior.mean, posterior.log_var
        return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)

    def sample(self, count: int, latent: int) -> Tensor:
        """``[count, latent]``."""
        return torch.randn(count, latent)


Inference = Callable[[Encoder, nn.Module, Tensor], Posterior]


def one_pass(encoder: Encoder, decoder: nn.Module, images: Tensor) -> Posterior:
    """Amortised inference: what the encoder says at once."""
    return encoder.posterior(images)


def reconstruction_error(logits: Tensor, images: Tensor, likelihood: str, sigma: float) -> Tensor:
    """-log p(x|z) up to a constant, summed over a picture, averaged over the batch.

    Args:
        logits: ``[B, C, H, W]``, the decoder's output; its sigmoid is the mean picture.
        images: the same shape, in [0, 1].
        likelihood: ``bernoulli`` (cross entropy) or ``gaussian`` of standard deviation ``sigma``.
    """
    if likelihood == "bernoulli":
        total = F.binary_cross_entropy_with_logits(full_precision(logits), images, reduction="sum")
    else:
        total = F.mse_loss(full_precision(logits).sigmoid(), images, reduction="sum") / (2 * sigma**2)
    return total / len(images)


class GuidedVAE(nn.Module):
    """A variational autoencoder whose latent units are guided (Ding et al., CVPR 2020).

    Args:
        encoder, decoder: of the same latent and pictures.
        guidances: loss terms on the latent; each owns the units that ``encoder.units`` names after it.
        beta: weight of the KL term (Higgins et al., ICLR 2017).
        likelihood: ``bernoulli`` or ``gaussian``.
        sigma: standard deviation of the Gaussian likelihood, in units of the picture's range.
        prior, inference: parts of their own, so that others can take their place.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: nn.Module,
        guidances: Sequence[Guidance] = (),
        beta: float = 1.0,
        likelihood: str = "bernoulli",
        sigma: float = 0.2,
        prior: StandardNormal | None = None,
        inference: Inference = one_pass,
    ) -> None:
        super().__init__()
        if likelihood not in ("bernoulli", "gaussian"):
            raise InputError(f"vae.likelihood must be 'bernoulli' or 'gaussian'; received {likelihood!r}.")
        if beta < 0 or sigma <= 0:
            raise InputError(f"vae.beta must be >= 0 and vae.sigma > 0; received {beta} and {sigma}.")
        self.encoder, self.decoder = encoder, decoder
        self.guidances = nn.ModuleList(guidances)
        self.prior = prior or StandardNormal()
        self.inference = inference
        self.beta, self.likelihood, self.sigma = beta, likelihood, sigma

    def losses(
        self,
        images: Tensor,
        attributes: dict[str, Tensor] | None = None,
        warm_up: float | Tensor = 1.0,
        views: Views | None = None,
    ) -> dict[str, Tensor]:
        """Named, weighted loss terms; their sum is what to minimise.

        Args:
            images: ``[B, C, H, W]`` in [0, 1].
            attributes: int64 ``[B]`` by name, for the guidances that need labels.
            warm_up: in [0, 1], multiplies beta; a tensor of one number where a captured step is to follow it.
            views: which pictures are warps of one; only the first of each is then rebuilt, to spare the decoder.
        """
        posterior = self.inference(self.encoder, self.decoder, images)
        z = posterior.sample()
        rebuilt = slice(None, None, views.count if views else 1)
        logits = self.decoder(z[rebuilt])
        terms = {
            "reconstruction": reconstruction_error(logits, images[rebuilt], self.likelihood, self.sigma),
            "kl": warm_up * self.beta * self.prior.kl(posterior, z).sum(-1).mean(),
        }
        inputs = GuidanceInputs(images, posterior, z, self.decoder, attributes or {}, views)
        for guidance in self.guidances:
            assert isinstance(guidance, Guidance)
            for name, value in guidance(inputs).items():
                terms[f"{guidance.name}/{name}"] = value
        return terms

    def check_views(self, views: int) -> None:
        """Raises `InputError` if a guidance compares warps of a picture and there are fewer than two of each."""
        for guidance in self.guidances:
            assert isinstance(guidance, Guidance)
            if guidance.needs_views and views < 2:
                raise InputError(
                    f"the guidance '{guidance.name}' compares warps of one picture; set views to 2 or more, and "
                    f"augment to what a warp may do. Received views {views}."
                )

    def reconstruct(self, images: Tensor) -> Tensor:
        """Mean pictures ``[B, C, H, W]`` in [0, 1] of the posterior means."""
        posterior = self.inference(self.encoder, self.decoder, images)
        return full_precision(self.decoder(posterior.mean)).sigmoid()
