"""InfoGAN with a contrastive regulariser: encoder, decoder and prior of a VAE, taught by a critic."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from episodes import InputError
from metagvae.config.adversary import AdversarySection
from metagvae.encoders.encoder import Encoder
from metagvae.encoders.norm import full_precision
from metagvae.encoders.spectral_norm import SpectralLinear
from metagvae.encoders.units import Units
from metagvae.guidance.base import Views
from metagvae.guidance.shared_unit import SharedUnit
from metagvae.vae.guided_vae import GuidedVAE

NOISE = "noise"  # the group of units that no one reads back


class _Reader(nn.Module):
    """An image's realness and its codes, told from one trunk: the encoder's."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.critic = encoder, SpectralLinear(encoder.backbone_size, 1)
        self.codes = Units([unit for group, units in encoder.units.items() if group != NOISE for unit in units])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[B]`` of being real, and codes ``[B, codes]``."""
        maps = self.encoder.maps(images)
        return full_precision(self.critic(maps)).squeeze(-1), self.codes(full_precision(self.encoder.to_mean(maps)))


class InfoGAN(nn.Module):
    """A generative adversarial network whose codes are read back (Chen et al., NeurIPS 2016; Lin et al., ICML 2020).

    The generator is the VAE's decoder, the network Q that reads codes back is its encoder, the codes come from its
    prior. What is trained is thus a `GuidedVAE` in the end, and reports, figures and learners take it as they take any
    other. One minimisation does for all players: each term's gradient reaches those alone that are to lower it.

    Args:
        vae: with the prior `UniformCodes`, or another whose units of a group ``noise`` are not to be read back.
        section: weights, and how the contrastive regulariser is switched on.

    Example:
        >>> import torch
        >>> from metagvae import Encoder, EncoderConfig, GuidedVAE
        >>> from metagvae.config import AdversarySection
        >>> from metagvae.vae.decoders import InfoGANDecoder
        >>> from metagvae.vae.infogan import InfoGAN
        >>> encoder = Encoder(EncoderConfig("infogan", 8, latent=5, units={"codes": [0, 1, 2], "noise": [3, 4]}))
        >>> gan = InfoGAN(GuidedVAE(encoder, InfoGANDecoder(5, 1, 28, 8)), AdversarySection(contrast=2.0))
        >>> sorted(gan.losses(torch.rand(4, 1, 28, 28)))
        ['codes', 'contrast', 'critic', 'generator', 'generator/codes']
    """

    def __init__(self, vae: GuidedVAE, section: AdversarySection) -> None:
        super().__init__()
        if vae.guidances:
            raise InputError("the section adversary trains without guidances; leave vae.guidance empty.")
        self.section = section
        self.decoder, self.prior = vae.decoder, vae.prior
        self.reader = _Reader(vae.encoder)
        config = vae.encoder.config
        self.contrast = None
        if section.contrast > 0:
            codes = self.reader.codes.numbers.tolist()
            self.contrast = SharedUnit(codes, config.latent, config.channels, config.size, section.width, section.gap)
        self._quiet(vae.encoder)

    @torch.no_grad()
    def _quiet(self, encoder: Encoder) -> None:
        """The posterior of before training: noise is never estimated, and no variance is learnt."""
        noise = encoder.units.get(NOISE, [])
        encoder.to_mean.weight[noise], encoder.to_mean.bias[noise] = 0.0, 0.0
        encoder.to_log_var.weight.zero_()
        encoder.to_log_var.bias.fill_(math.log(1 / 3))  # of a uniform number in [-1, 1]
        encoder.to_log_var.requires_grad_(False)

    def rates(self) -> dict[str, float]:
        """Factors of the learning rate, by the beginning of weights' names."""
        return {"decoder.": self.section.generator_rate}

    def draw(self, z: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` in [0, 1] of latents ``[B, latent]``."""
        return full_precision(self.decoder(z)).sigmoid()

    def losses(
        self,
        images: Tensor,
        attributes: dict[str, Tensor] | None = None,
        warm_up: float | Tensor = 1.0,
        views: Views | None = None,
        progress: float | Tensor = 1.0,
    ) -> dict[str, Tensor]:
        """Named, weighted terms; their sum is what to minimise.

        Args:
            images: ``[B, C, H, W]`` in [0, 1].
            attributes, warm_up, views: as `GuidedVAE.losses` takes them; a critic has no use for them.
            progress: how much of the training is behind, in [0, 1]; a tensor of one number in a captured step.
        """
        z = self.prior.sample(len(images), {})
        codes, drawn = self.reader.codes(z), self.draw(z)
        # what critic and reader learn from is no gradient of the generator's
        (real, fake), (_, read) = (both.chunk(2) for both in self.reader(torch.cat((images, drawn.detach()))))
        terms = {
            "critic": F.softplus(-real).mean() + F.softplus(fake).mean(),
            "codes": self.section.codes * _surprise(read, codes),
        }
        # and what the generator learns from is none of theirs
        fake, read = functional_call(self.reader, _still(self.reader), (drawn,))
        terms["generator"] = F.softplus(-fake).mean()
        terms["generator/codes"] = self.section.codes * _surprise(read, codes)
        if self.contrast is not None:
            begun = progress >= self.section.start
            # a captured step cannot choose; else no pair is drawn for nothing
            due = isinstance(begun, Tensor) or begun
            confusion = self._confusion(self.contrast, len(images)) if due else drawn.new_zeros(())
            terms["contrast"] = begun * self.section.contrast * confusion
        return terms

    def _confusion(self, contrast: SharedUnit, count: int) -> Tensor:
        """The cross entropy of telling which code two drawn images share."""
        one, other, shared = contrast.pairs(*(self.prior.sample(count, {}) for _ in range(2)))
        first, second = self.draw(torch.cat((one, other))).chunk(2)
        return F.cross_entropy(contrast(first, second), shared)

    @torch.no_grad()
    def fit_variance(self, count: int = 4096, seed: int = 0) -> None:
        """Sets the encoder's variance of each code to its mean squared error on images drawn here.

        With it the posterior says how well a code can be read, and `UniformCodes.kl_per_unit` how much it carries.
        """
        encoder, codes = self.reader.encoder, self.reader.codes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            z = self.prior.sample(count, {})
        gaps = [self.reader(self.draw(rows))[1] - codes(rows) for rows in z.split(256)]
        encoder.to_log_var.bias[codes.numbers] = torch.cat(gaps).square().mean(0).clamp(min=1e-5).log()


def _still(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in module.named_parameters()}


def _surprise(read: Tensor, codes: Tensor) -> Tensor:
    """-log q(codes | image), q of variance 1, summed over the codes and averaged over the batch, in nats."""
    return 0.5 * ((read - codes).square() + math.log(2 * math.pi)).sum(-1).mean()
