"""The Neural Statistician's generative model: a context per set, a latent per picture.

Edwards & Storkey, "Towards a Neural Statistician", ICLR 2017:

    c ~ N(0, I),    z | c ~ N(mean(c), var(c)),    x | z, c ~ Bernoulli(decoder(z, c))
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metagvae.encoders.encoder import Posterior
from metagvae.vae.decoders import Decoder
from metagvae.vae.likelihoods import reconstruction_error


def gaussian_kl(first: Posterior, second: Posterior) -> Tensor:
    """KL(first || second) per unit, in nats; means and log-variances are broadcast against each other."""
    gap = (first.mean - second.mean).square() + first.log_var.exp()
    return 0.5 * (second.log_var - first.log_var + gap * (-second.log_var).exp() - 1)


class GaussianNetwork(nn.Module):
    """A vector to a diagonal Gaussian: one hidden layer for the variance, and for what a linear mean leaves out.

    Args:
        inputs, outputs: lengths.
        hidden: width of the hidden layer.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.straight = nn.Linear(inputs, outputs)
        self.hidden = nn.Linear(inputs, hidden)
        self.last = nn.Linear(hidden, 2 * outputs)
        nn.init.zeros_(self.last.bias)
        nn.init.normal_(self.last.weight, std=0.1 / math.sqrt(hidden))

    def forward(self, x: Tensor) -> Posterior:
        """``[..., inputs]`` to a posterior of ``[..., outputs]``."""
        correction, log_var = self.last(F.elu(self.hidden(x))).chunk(2, -1)
        return Posterior(self.straight(x) + correction, log_var.clamp(-8, 4))


class StatisticNetwork(nn.Module):
    """q(c | D): embeds each picture, averages over the set, and reads a Gaussian off the mean and the set's size.

    It does not depend on the order of the set, and takes sets of any size.

    Args:
        features: length of a picture's feature.
        context: units of c.
        hidden: width of the hidden layers.
    """

    def __init__(self, features: int, context: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, hidden)
        self.read = GaussianNetwork(features + hidden + 1, context, hidden)

    def forward(self, features: Tensor) -> Posterior:
        """Features of sets ``[..., n, features]`` to a posterior of ``[..., context]``."""
        pooled = torch.cat((features, F.elu(self.embed(features))), -1).mean(-2)
        size = pooled.new_full((*pooled.shape[:-1], 1), math.log(features.shape[-2]))
        posterior: Posterior = self.read(torch.cat((pooled, size), -1))
        return posterior


class Hierarchy(nn.Module):
    """p(c) p(z|c) p(x|z,c) with q(c|D) and q(z|x,c).

    Args:
        features: length of a picture's feature, from the encoder that all networks share.
        context, latent: units of c and of z.
        channels, size: of the pictures.
        hidden: width of the hidden layers.
        decoder_width: feature maps before the decoder's last layer.
    """

    def __init__(
        self, features: int, context: int, latent: int, channels: int, size: int, hidden: int, decoder_width: int
    ) -> None:
        super().__init__()
        self.statistics = StatisticNetwork(features, context, hidden)
        self.inference = GaussianNetwork(features + context, latent, hidden)
        self.latent_prior = GaussianNetwork(context, latent, hidden)
        self.decoder = Decoder(latent + context, channels, size, decoder_width)

    def picture_terms(self, context: Tensor, features: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction error and KL(q(z|x,c) || p(z|c)), in nats per picture.

        Args:
            context: ``[S, context]``, a draw of c per set.
            features: ``[S, n, features]`` of the pictures to rebuild.
            images: ``[S, n, C, H, W]`` in [0, 1].
        """
        each = context.unsqueeze(1).expand(-1, features.shape[1], -1)
        posterior = self.inference(torch.cat((features, each), -1))
        kl = gaussian_kl(posterior, self.latent_prior(each)).sum(-1).mean()
        logits = self.decoder(torch.cat((posterior.sample(), each), -1).flatten(0, 1))
        return reconstruction_error(logits, images.flatten(0, 1), "bernoulli", 1.0), kl


def context_kl(posterior: Posterior) -> Tensor:
    """KL(q(c|D) || N(0, I)) in nats, averaged over sets ``[..., context]``."""
    zero = torch.zeros_like(posterior.mean)
    return gaussian_kl(posterior, Posterior(zero, zero)).sum(-1).mean()
