"""Amortised inference (Kingma & Welling, ICLR 2014)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from metagvae.encoders.encoder import Posterior
from metagvae.guidance.base import GuidanceContext
from metagvae.vae.inference.base import INFERENCES, Inference

if TYPE_CHECKING:
    from metagvae.vae.guided_vae import GuidedVAE


@INFERENCES.register
class Amortised(Inference):
    """One pass of the encoder.

    Example:
        >>> import torch
        >>> from metagvae import Decoder, Encoder, EncoderConfig, GuidedVAE
        >>> vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=6)), Decoder(6, 1, 28))
        >>> vae.infer(torch.rand(3, 1, 28, 28)).mean.shape  # it is what a VAE does by default
        torch.Size([3, 6])
    """

    name = "amortised"

    def __init__(self, context: GuidanceContext) -> None:
        super().__init__()

    def forward(self, vae: GuidedVAE, images: Tensor) -> Posterior:
        return vae.encoder.posterior(images)
