"""The contract of an inference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from episodes.registry import Registry
from metagvae.encoders.encoder import Posterior

if TYPE_CHECKING:
    from metagvae.vae.guided_vae import GuidedVAE


class Inference(nn.Module, ABC):
    """How a VAE gets from images to q(z|x). A subclass's constructor takes a `GuidanceContext`, then its options.

    Attributes:
        has_density: whether the answer is a density over latents, with a KL from the prior. If not, it is a point, the
            loss has no KL, and the encoder is taught by regression on the points.

    `GuidedVAE.infer` is the only caller, in training and out of it. Reports ask under ``torch.no_grad``, so an
    inference that takes gradients opens ``torch.enable_grad`` itself, and asks for those of the latent alone
    (``torch.autograd.grad``), so that no weight's gradient is touched.

    Example:
        >>> import torch
        >>> from metagvae import Decoder, Encoder, EncoderConfig, GuidedVAE
        >>> from metagvae.vae.inference import Inference
        >>> class Mirrored(Inference):
        ...     name = "mirrored"
        ...     def forward(self, vae, images):
        ...         return vae.encoder.posterior(images.flip(-1))
        >>> vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=6)), Decoder(6, 1, 28), inference=Mirrored())
        >>> vae.infer(torch.rand(3, 1, 28, 28)).mean.shape
        torch.Size([3, 6])
    """

    name: ClassVar[str]
    has_density: bool = True

    @abstractmethod
    def forward(self, vae: GuidedVAE, images: Tensor) -> Posterior:
        """q(z|x), ``[B, latent]``.

        Args:
            vae: with its encoder, decoder, prior and likelihood (`GuidedVAE.reconstruction`).
            images: ``[B, C, H, W]`` in [0, 1].
        """


INFERENCES: Registry[type[Inference]] = Registry("inference", "metagvae.vae.inference", given=("context",))
