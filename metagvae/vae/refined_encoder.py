"""An encoder that carries its decoder, and refines its answer by steps on log p(x, z) at every call."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from episodes import InputError
from metagvae.encoders.encoder import ENCODERS, Encoder, EncoderConfig, Posterior
from metagvae.guidance.base import GuidanceContext
from metagvae.vae.decoders import DECODERS
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.inference import INFERENCES, ShortRun
from metagvae.vae.likelihoods import OF_IMAGES, log_likelihood
from metagvae.vae.priors import StandardNormal


@dataclass
class RefinedConfig(EncoderConfig):
    """Settings of an encoder and of the decoder that it carries.

    Args:
        decoder: kind of the decoder, ``upsampling`` or ``ding``.
        decoder_width: feature maps before the decoder's last layer.
        likelihood: ``bernoulli``, ``gaussian`` or ``logistic``.
        sigma: standard deviation of the Gaussian and scale of the logistic likelihood.
        refinement: options of `ShortRun`, such as ``steps`` and ``step``.
    """

    decoder: str = "upsampling"
    decoder_width: int = 32
    likelihood: str = "bernoulli"
    sigma: float = 0.2
    refinement: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raises `InputError` if a value is not allowed."""
        super().check()
        DECODERS.find(self.decoder, "encoder.decoder: ")
        INFERENCES.checked(ShortRun.name, self.refinement, "encoder.refinement: ")
        if self.likelihood not in OF_IMAGES:
            raise InputError(
                f"encoder.likelihood must be one of {', '.join(OF_IMAGES)}; received {self.likelihood[:100]!r}."
            )
        if not (1 <= self.decoder_width <= 1024 and 0 < self.sigma < 1e6):
            raise InputError(
                f"encoder.decoder_width must be between 1 and 1024, and encoder.sigma positive; received "
                f"{self.decoder_width} and {self.sigma}."
            )


@ENCODERS.register
class RefinedEncoder(Encoder):
    """An encoder whose posterior means are moved by short-run inference, `ShortRun`, before they are features.

    Raises:
        InputError: if the config holds a value that is not allowed.

    Example:
        >>> import torch
        >>> from metagvae import Decoder, Encoder, EncoderConfig, GuidedVAE
        >>> from metagvae.vae.refined_encoder import refined
        >>> vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=6)), Decoder(6, 1, 28, width=4)).eval()
        >>> encoder = refined(vae, "upsampling", 4, {"steps": 5})
        >>> images = torch.rand(3, 1, 28, 28)
        >>> encoder(images).shape, bool(torch.equal(encoder(images), vae.encoder(images)))
        (torch.Size([3, 6]), False)
    """

    name = "refined"
    settings = RefinedConfig
    exportable = False

    def __init__(self, config: RefinedConfig) -> None:
        super().__init__(config)
        self.carried: RefinedConfig = self.config  # type: ignore[assignment]  # the copy that the base class made
        context = GuidanceContext(config.channels, config.size, self.units)
        self.decoder = DECODERS[config.decoder](config.latent, config.channels, config.size, config.decoder_width)
        self.prior = StandardNormal(context)
        self.short_run = ShortRun(context, **config.refinement)

    def recognition(self, images: Tensor) -> Posterior:
        """q(z|x) of one pass, before the steps."""
        return super().posterior(images)

    def log_joint(self, images: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) of each image and its latent, ``[B]``, in nats."""
        given = log_likelihood(self.decoder(z), images, self.carried.likelihood, self.carried.sigma)
        return given + self.prior.log_prob(z, {})

    def posterior(self, images: Tensor) -> Posterior:
        return self.short_run.refine(self, images)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``[B, feature_size]`` of images ``[B, C, H, W]`` in [0, 1], after the steps."""
        if self.features == ["backbone"]:
            return self.maps(images)
        maps = self.maps(images) if "backbone" in self.features else images
        return self.chosen_features(maps, self.posterior(images).mean)


def refined(vae: GuidedVAE, decoder: str, decoder_width: int, refinement: dict[str, Any]) -> RefinedEncoder:
    """A VAE's encoder and decoder, copied, as an encoder that refines its answer.

    Args:
        decoder, decoder_width: the kind and width of the VAE's decoder, as its config names them.
        refinement: options of `ShortRun`.

    Raises:
        InputError: if the VAE's prior is another than the standard normal, its decoder is one that a guidance has
            wrapped, or an option is not allowed.
    """
    if type(vae.prior) is not StandardNormal:
        raise InputError(
            f"a refined encoder carries its decoder but no prior other than standard_normal; this VAE has "
            f"'{vae.prior.name}'. Set vae.inference in its config instead."
        )
    if vae.likelihood == "categorical":
        raise InputError("a refined encoder is of images; for texts, set vae.inference in the config instead.")
    config = RefinedConfig(
        **asdict(vae.encoder.config),
        decoder=decoder,
        decoder_width=decoder_width,
        likelihood=vae.likelihood,
        sigma=vae.sigma,
        refinement=dict(refinement),
    )
    encoder = RefinedEncoder(config)
    if vae.decoder.state_dict().keys() != encoder.decoder.state_dict().keys():
        raise InputError(
            f"a refined encoder carries a plain decoder '{decoder}'; this VAE's is warped by its guidance "
            "(main_decoder). Set vae.inference in its config instead."
        )
    carried = {f"decoder.{name}": value for name, value in vae.decoder.state_dict().items()}
    encoder.load_state_dict({**vae.encoder.state_dict(), **carried})
    return encoder.eval()
