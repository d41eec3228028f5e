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

    `GuidedVAE.infer` is the only caller, in training and out of it. Reports ask under ``torch.no_grad``, so an
    inference that takes gradients opens ``torch.enable_grad`` itself, and asks for those of the latent alone
    (``torch.autograd.grad``), so that no weight's gradient is touched.
    """

    name: ClassVar[str]

    @abstractmethod
    def forward(self, vae: GuidedVAE, images: Tensor) -> Posterior:
        """q(z|x), ``[B, latent]``.

        Args:
            vae: with its encoder, decoder, prior and likelihood (`GuidedVAE.reconstruction`).
            images: ``[B, C, H, W]`` in [0, 1].
        """


INFERENCES: Registry[type[Inference]] = Registry("inference", "metagvae.vae.inference", given=("context",))
