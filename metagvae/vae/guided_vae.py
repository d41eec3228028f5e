"""GuidedVAE: an encoder, a decoder and any list of guidances. A plain VAE is the empty list."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from episodes import InputError
from episodes.tokens import TEXT
from metagvae.compute.batch_statistics import batch_rows
from metagvae.encoders.encoder import Encoder, Posterior
from metagvae.encoders.norm import full_precision
from metagvae.guidance.base import Guidance, GuidanceContext, GuidanceInputs, Views
from metagvae.vae.inference import Amortised, Inference
from metagvae.vae.likelihoods import LIKELIHOODS, log_likelihood, reconstruction_error
from metagvae.vae.priors import Labels, Prior, StandardNormal


class GuidedVAE(nn.Module):
    """A variational autoencoder whose latent units are guided (Ding et al., CVPR 2020).

    Args:
        encoder, decoder: of the same latent and pictures.
        guidances: loss terms on the latent; each owns the units that ``encoder.units`` names after it.
        beta: weight of the KL term (Higgins et al., ICLR 2017).
        likelihood: ``bernoulli``, ``gaussian`` or ``logistic``; of texts ``categorical``, and the decoder is given the
            text too. See `metagvae.vae.likelihoods`.
        sigma: standard deviation of the Gaussian and scale of the logistic likelihood, in units of the picture's range.
        prior: of the latent; the standard normal if None.
        free_bits: nats per unit, averaged over a batch, that the KL does not count (Kingma et al., NeurIPS 2016).
        inference: how `infer` gets from images to a posterior; one pass of the encoder if None.

    Example:
        >>> import torch
        >>> from metagvae import Decoder, Encoder, EncoderConfig, GuidedVAE
        >>> from metagvae.guidance import DeformablePCA, GuidanceContext, assign_units
        >>> units = assign_units([{"name": "deformable_pca"}], latent=16)
        >>> encoder = Encoder(EncoderConfig(width=8, latent=16, units=units))
        >>> guidance = DeformablePCA(GuidanceContext(channels=1, size=28, units=units))
        >>> vae = GuidedVAE(encoder, Decoder(16, 1, 28), [guidance])
        >>> sorted(vae.losses(torch.rand(4, 1, 28, 28)))
        ['deformable_pca/orthogonality', 'deformable_pca/reconstruction', 'kl', 'reconstruction']
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: nn.Module,
        guidances: Sequence[Guidance] = (),
        beta: float = 1.0,
        likelihood: str = "bernoulli",
        sigma: float = 0.2,
        prior: Prior | None = None,
        inference: Inference | None = None,
        free_bits: float = 0.0,
    ) -> None:
        super().__init__()
        if likelihood not in LIKELIHOODS:
            raise InputError(f"vae.likelihood must be one of {', '.join(LIKELIHOODS)}; received {likelihood!r}.")
        if (likelihood == "categorical") != (encoder.config.polarity == TEXT):
            raise InputError(
                f"vae.likelihood 'categorical' is of texts, and the others are of images; received {likelihood!r} for "
                f"an encoder of {'texts' if encoder.config.polarity == TEXT else 'images'}."
            )
        if not 0 <= free_bits < math.inf:
            raise InputError(f"vae.free_bits must be at least 0; received {free_bits}.")
        if beta < 0 or sigma <= 0:
            raise InputError(f"vae.beta must be >= 0 and vae.sigma > 0; received {beta} and {sigma}.")
        for guidance in guidances:
            decoder = guidance.around(decoder)
        self.encoder, self.decoder = encoder, decoder
        # a list of modules to torch, of guidances to whoever asks them
        self.guidances = cast(Sequence[Guidance], nn.ModuleList(guidances))
        config = encoder.config
        context = GuidanceContext(config.channels, config.size, config.units)
        self.prior = StandardNormal(context) if prior is None else prior
        self.inference = Amortised(context) if inference is None else inference
        self.beta, self.likelihood, self.sigma, self.free_bits = beta, likelihood, sigma, free_bits
        if self.guidances and not self.inference.has_density:
            raise InputError(
                f"the inference '{self.inference.name}' begins at the prior, so no guidance could reach the encoder; "
                "set its start to 'encoder', or leave vae.guidance empty."
            )

    def infer(self, images: Tensor) -> Posterior:
        """q(z|x) of images ``[B, C, H, W]`` in [0, 1]: the one door to the posterior, in training and out of it."""
        posterior: Posterior = self.inference(self, images)
        return posterior

    def recognition(self, images: Tensor) -> Posterior:
        """The encoder's own q(z|x), whatever the inference makes of it: where chains and proposals begin."""
        return self.encoder.posterior(images)

    def log_joint(self, images: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) of each image and its latent ``[B, latent]``, in nats, ``[B]``; beta and guidances are no part.

        Raises:
            InputError: if the prior has no density.
        """
        return self.log_likelihood(images, z) + self.prior.log_prob(z, {})

    def log_likelihood(self, images: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) of each image and its latent ``[B, latent]``, in nats, ``[B]``."""
        return log_likelihood(self._logits(z, images), images, self.likelihood, self.sigma)

    def _logits(self, z: Tensor, images: Tensor) -> Tensor:
        logits: Tensor = self.decoder(z, images) if self.likelihood == "categorical" else self.decoder(z)
        return logits

    def losses(
        self,
        images: Tensor,
        attributes: dict[str, Tensor] | None = None,
        warm_up: float | Tensor = 1.0,
        views: Views | None = None,
        progress: float | Tensor = 1.0,
    ) -> dict[str, Tensor]:
        """Named, weighted loss terms; their sum is what to minimise.

        Args:
            images: ``[B, C, H, W]`` in [0, 1].
            attributes: int64 ``[B]`` by name, for the guidances that need labels.
            warm_up: in [0, 1], multiplies beta; a tensor of one number where a captured step is to follow it.
            views: which pictures are warps of one; only the first of each is then rebuilt, to spare the decoder.
            progress: how much of the training is behind, in [0, 1], for the guidances and the prior; as ``warm_up``.
        """
        posterior, labels = self.infer(images), attributes or {}
        z = posterior.sample()
        rebuilt = slice(None, None, views.count if views else 1)
        logits = self._logits(z[rebuilt], images[rebuilt])
        terms = {"reconstruction": self.reconstruction(logits, images[rebuilt])}
        if self.inference.has_density:
            terms["kl"] = warm_up * self.beta * self._kl_term(posterior, z, labels, progress)
        else:  # the encoder learns where the inference ends, so that features stay one pass away
            terms["distillation"] = -self.recognition(images).log_prob(z.detach()).mean()
        inputs = GuidanceInputs(images, posterior, z, self.decoder, labels, views, progress, self._draw)
        for guidance in self.guidances:
            for name, value in guidance(inputs).items():
                terms[f"{guidance.name}/{name}"] = value
        return terms

    def check_views(self, views: int) -> None:
        """Raises `InputError` if a guidance compares warps of a picture and there are fewer than two of each."""
        for guidance in self.guidances:
            if guidance.needs_views and views < 2:
                raise InputError(
                    f"the guidance '{guidance.name}' compares warps of one picture; set views to 2 or more, and "
                    f"augment to what a warp may do. Received views {views}."
                )

    def reconstruction(self, logits: Tensor, images: Tensor) -> Tensor:
        """`reconstruction_error` under this VAE's likelihood."""
        return reconstruction_error(logits, images, self.likelihood, self.sigma)

    def decode(self, z: Tensor) -> Tensor:
        """Mean images ``[B, C, H, W]`` in [0, 1] of latents ``[B, latent]``; of texts, the likeliest characters."""
        if self.likelihood == "categorical":
            written: Tensor = self.decoder.write(z)  # type: ignore[operator]
            return written
        return full_precision(self.decoder(z)).sigmoid()

    def reconstruct(self, images: Tensor) -> Tensor:
        """Mean images ``[B, C, H, W]`` in [0, 1] of the posterior means."""
        return self.decode(self.infer(images).mean)

    def counterfactual(self, images: Tensor, do: Mapping[str, Tensor]) -> Tensor:
        """Mean images ``[B, C, H, W]`` in [0, 1], as they would have been, had the factors in ``do`` been set.

        Args:
            images: ``[B, C, H, W]`` in [0, 1].
            do: by factor, either its numbers ``[B]``, or images ``[B, C, H, W]`` to copy the factor from.

        Raises:
            InputError: if the prior knows no causes, or no such factor or number.
        """
        return self.decode(self.intervened(images, do))

    def intervened(self, images: Tensor, do: Mapping[str, Tensor]) -> Tensor:
        """The latents ``[B, latent]`` that `counterfactual` decodes."""
        units = self.encoder.units
        copied = {
            name: self.infer(given).mean[:, units[name]] if given.ndim == 4 and name in units else given
            for name, given in do.items()
        }
        return self.prior.intervene(self.infer(images).mean, copied)

    def kl(self, posterior: Posterior) -> Tensor:
        """KL from the prior of each image's posterior, ``[B]``, in nats, labels unknown; the same at every call.

        Of an inference without a density it is not a number.
        """
        if not self.inference.has_density:
            return torch.full_like(posterior.mean[:, 0], math.nan)
        return self._kl(posterior, _fixed_draw(posterior), {})

    def kl_of_units(self, posterior: Posterior) -> Tensor | None:
        """Nats that each latent unit carries, ``[latent]``: its part of `kl`, averaged over the images.

        None if the prior has no such parts, or the inference no density.
        """
        if not self.inference.has_density:
            return None
        each = self.prior.kl_per_unit(posterior, _fixed_draw(posterior), {})
        return None if each is None else each.mean(0)

    def _kl_term(self, posterior: Posterior, z: Tensor, labels: Labels, progress: float | Tensor) -> Tensor:
        """The KL averaged over a batch, no unit below its free bits."""
        with self._so_far(progress):
            if not self.free_bits:
                return self._kl(posterior, z, labels).mean()
            each = self.prior.kl_per_unit(posterior, z, labels)
        if each is None:
            raise InputError(f"vae.free_bits counts single units, which the prior '{self.prior.name}' does not tell.")
        return batch_rows(each).mean(0).clamp(min=self.free_bits).sum()

    @contextmanager
    def _so_far(self, progress: float | Tensor) -> Iterator[None]:
        """The prior as it is after that much of the training."""
        self.prior.progress = progress
        try:
            yield
        finally:
            self.prior.progress = 1.0

    @torch.no_grad()
    def _draw(self, count: int) -> Tensor:
        """Latents ``[count, latent]`` from the prior, for guidances, whose terms teach it nothing."""
        return self.prior.sample(count, {})

    def _kl(self, posterior: Posterior, z: Tensor, labels: Labels) -> Tensor:
        kl = self.prior.kl(posterior, z, labels)
        if kl.shape != z.shape[:1]:
            raise InputError(
                f"the prior '{self.prior.name}' must give one KL per image, [{len(z)}]; received {list(kl.shape)}. "
                "Sum over the latent units in its kl()."
            )
        return kl


def _fixed_draw(posterior: Posterior) -> Tensor:
    """A draw ``[B, latent]`` that is the same at every call and takes nothing from torch's generator."""
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0))
    return posterior.mean + noise.to(posterior.mean) * (0.5 * posterior.log_var).exp()
