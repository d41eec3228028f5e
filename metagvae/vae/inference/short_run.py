"""Short-run inference (Nijkamp et al., ECCV 2020; Pang, Nijkamp, Han & Wu, EACL 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from episodes import InputError
from episodes.counter_rng import check_seed, fold
from metagvae.encoders.encoder import Posterior
from metagvae.guidance.base import GuidanceContext
from metagvae.vae.inference.base import INFERENCES, Inference
from metagvae.vae.inference.image_noise import image_keys, normal_noise
from metagvae.vae.inference.langevin import finite_steps, langevin_chain

if TYPE_CHECKING:
    from metagvae.vae.guided_vae import GuidedVAE

NARROW = -12.0  # log-variance of a point
_START = 2**32  # counter of the noise that a chain begins with; its steps count from 0


class LatentModel(Protocol):
    """The part of a VAE that a chain asks for: `GuidedVAE` has it, and an encoder that carries its decoder."""

    decoder: nn.Module

    def recognition(self, images: Tensor) -> Posterior: ...

    def log_joint(self, images: Tensor, z: Tensor) -> Tensor: ...


@INFERENCES.register
class ShortRun(Inference):
    """A few gradient or Langevin steps on log p(x, z), from the encoder's mean or from a draw of N(0, I).

    From the encoder, a step is measured in the encoder's own variances, unit by unit, and the answer keeps them:
    N(z_K, variance), with the way back to the encoder left open. From the prior, the answer is the point z_K; the
    decoder is then trained without an encoder, and the encoder is taught by regression where the chains end.

    The noise is a function of the image and of ``seed``, so features do not depend on the batch. In training each
    step salts it anew.

    Args:
        steps: how many, at least 1.
        start: ``encoder`` or ``prior``.
        step: length of a step, or a list of lengths whose last one is kept up.
        temperature: of the noise; 0 is gradient ascent, 1 Langevin dynamics.
        chains: the answer is the mean of so many ends.
        seed: of the noise outside of training.

    Raises:
        InputError: for a value that is not allowed.

    Example:
        >>> import torch
        >>> from metagvae import Decoder, Encoder, EncoderConfig, GuidedVAE
        >>> from metagvae.guidance import GuidanceContext
        >>> from metagvae.vae.inference import ShortRun
        >>> inference = ShortRun(GuidanceContext(1, 28, {"content": list(range(6))}), steps=5, step=0.2)
        >>> vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=6)), Decoder(6, 1, 28), inference=inference).eval()
        >>> images = torch.rand(3, 1, 28, 28)
        >>> z, start = vae.infer(images).mean, vae.recognition(images).mean
        >>> bool((vae.log_joint(images, z) > vae.log_joint(images, start)).all())
        True
    """

    name = "short_run"

    def __init__(
        self,
        context: GuidanceContext,
        steps: int = 20,
        start: str = "encoder",
        step: float | list[float] = 0.1,
        temperature: float = 0.0,
        chains: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if start not in ("encoder", "prior"):
            raise InputError(f"short_run: start must be 'encoder' or 'prior'; received {str(start)[:100]!r}.")
        self.lengths = finite_steps(step, steps)
        if not 1 <= steps <= 10_000 or not self.lengths:
            raise InputError(
                f"short_run needs steps from 1 to 10,000 and step above 0; received {steps} and {str(step)[:100]}."
            )
        if not 0 <= temperature <= 100 or not 1 <= chains <= 1000:
            raise InputError(
                f"short_run needs a temperature from 0 to 100 and 1 to 1,000 chains; received {temperature} and "
                f"{chains}."
            )
        check_seed(seed, "short_run: seed")
        self.latent, self.start, self.temperature, self.chains, self.seed = (
            context.latent,
            start,
            temperature,
            chains,
            seed,
        )
        self.has_density = start == "encoder"

    def forward(self, vae: GuidedVAE, images: Tensor) -> Posterior:
        return self.refine(vae, images)

    def refine(self, model: LatentModel, images: Tensor) -> Posterior:
        """q(z|x) of images ``[B, C, H, W]`` in [0, 1] after the steps, ``[B, latent]``."""
        keys = fold(image_keys(images), self._salt(images.device))
        keys = fold(keys.unsqueeze(1), torch.arange(self.chains, device=keys.device)).flatten()
        if not self.has_density:
            begin = normal_noise(keys, _START, self.latent).to(images)
            z = self.ends(model, images, begin, torch.ones_like(begin), keys)
            return Posterior(z, torch.full_like(z, NARROW))
        first = model.recognition(images)
        mean, variance = first.mean.detach(), first.log_var.detach().exp()
        begin = mean.repeat_interleave(self.chains, 0)
        z = self.ends(model, images, begin, variance.repeat_interleave(self.chains, 0), keys)
        return Posterior(first.mean + (z - mean), first.log_var)

    def ends(self, model: LatentModel, images: Tensor, begin: Tensor, variance: Tensor, keys: Tensor) -> Tensor:
        """The mean end ``[B, latent]`` of each image's chains.

        Args:
            images: ``[B, C, H, W]``.
            begin, variance: ``[B * chains, latent]``, where a chain begins and what its steps are measured in.
            keys: int64 ``[B * chains]``, of each chain's noise.
        """
        shown = images.detach().repeat_interleave(self.chains, 0)
        training = model.decoder.training
        model.decoder.eval()  # no dropout inside the chain
        try:
            with torch.autocast(images.device.type, enabled=False):
                z = langevin_chain(
                    lambda z: model.log_joint(shown, z),
                    begin,
                    self.lengths,
                    variance,
                    self.temperature,
                    lambda number: normal_noise(keys, number, self.latent).to(begin),
                )
        finally:
            model.decoder.train(training)
        ends: Tensor = z.unflatten(0, (-1, self.chains))
        return ends.mean(1)

    def _salt(self, device: torch.device) -> Tensor | int:
        """In training one fresh number per step, the same on every process; else the seed."""
        return torch.randint(2**62, (), device=device) if self.training else self.seed
