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
    """One pass of the encoder."""

    name = "amortised"

    def __init__(self, context: GuidanceContext) -> None:
        super().__init__()

    def forward(self, vae: GuidedVAE, images: Tensor) -> Posterior:
        return vae.encoder.posterior(images)
