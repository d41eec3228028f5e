"""Networks of timm and torchvision as encoders: ``timm:NAME``, ``torchvision:NAME``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError
from episodes.untrusted.typed import check_types
from metagvae.encoders.encoder import ENCODERS, Encoder, EncoderConfig, Posterior
from metagvae.encoders.foreign_networks import (
    PROVIDERS,
    names_of,
    network_of,
    package_of,
    parted,
    pretrained_network,
    refusals_of,
)
from metagvae.encoders.norm import full_precision
from metagvae.encoders.whitening import Whitening

MAX_LENGTH, MAX_SIDE = 65_536, 1024


@dataclass
class ForeignConfig(EncoderConfig):
    """Settings that rebuild a network of another package; `backbone` is ``timm:NAME`` or ``torchvision:NAME``.

    It has no latent, so no ``units``; its one kind of features is ``backbone``.

    Args:
        channel_mean, channel_std: subtracted and divided by, per channel.
        length: of a picture's feature.
        whitened: directions of the `Whitening` after the network; 0 for none.
    """

    channel_mean: list[float] = field(default_factory=lambda: [0.0])
    channel_std: list[float] = field(default_factory=lambda: [1.0])
    length: int = 1
    whitened: int = 0

    def check(self) -> None:
        """Raises `InputError` if a value is not allowed."""
        check_types(type(self), vars(self), "encoder.")
        provider, _, name = self.backbone.partition(":")
        if provider not in PROVIDERS or not name:
            raise InputError(f"backbone {self.backbone!r} is none of {', '.join(f'{p}:NAME' for p in PROVIDERS)}.")
        if name not in names_of(provider):
            raise InputError(f"{provider} has no classifier named {name!r}; its own list_models() names them.")
        if not (isinstance(self.size, int) and 1 <= self.size <= MAX_SIDE and self.channels in (1, 3)):
            raise InputError(
                f"a foreign encoder takes 1 or 3 channels and sides up to {MAX_SIDE}: {self.channels}, {self.size}."
            )
        if not isinstance(self.length, int) or not 1 <= self.length <= MAX_LENGTH:
            raise InputError(f"encoder.length must be between 1 and {MAX_LENGTH}; received {self.length}.")
        if not 0 <= self.whitened <= self.length:
            raise InputError(f"encoder.whitened must be between 0 and {self.length}; received {self.whitened}.")
        for name, numbers in (("channel_mean", self.channel_mean), ("channel_std", self.channel_std)):
            if len(numbers) != self.channels or not all(math.isfinite(number) for number in numbers):
                raise InputError(
                    f"encoder.{name} must hold {self.channels} finite number(s), one per channel; received "
                    f"{str(numbers)[:200]}."
                )
        if not all(x > 0 for x in self.channel_std):
            raise InputError(f"encoder.channel_std must be positive; received {self.channel_std}.")
        if self.features != ["backbone"]:
            raise InputError(f"{self.backbone} has no latent; its features are ['backbone'], not {self.features}.")
        if self.polarity not in ("ink", "light"):
            raise InputError(f"encoder.polarity must be 'ink' or 'light'; received {self.polarity[:100]!r}.")


@ENCODERS.register
class ForeignEncoder(Encoder):
    """A network of another package, its last layer taken off.

    A call takes pictures ``[B, 1 or 3, H, W]`` in [0, 1] of any size, brings them to the network's own channels and
    size, and returns ``[B, length]``. It is fine-tuned like any encoder; there is no VAE around it.
    """

    name = "external"
    settings = ForeignConfig
    takes_any_size = True
    has_posterior = False

    mean: Tensor
    std: Tensor

    def __init__(self, config: ForeignConfig, network: nn.Module | None = None) -> None:
        nn.Module.__init__(self)
        config.check()
        self.config: ForeignConfig = config
        self.network = network or network_of(config.backbone)
        self.backbone_size = config.length
        self.whitening = Whitening(config.length, config.whitened) if config.whitened else nn.Identity()
        self.register_buffer("mean", torch.tensor(config.channel_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config.channel_std)[:, None, None], persistent=False)

    @property
    def features(self) -> list[str]:
        """Always ``["backbone"]``."""
        return self.config.features

    @features.setter
    def features(self, names: list[str]) -> None:
        if list(names) != ["backbone"]:
            raise InputError(f"{self.config.backbone} has no latent; its features are ['backbone'], not {names}.")

    def maps(self, images: Tensor) -> Tensor:
        """The network's features ``[B, length]`` of pictures ``[B, 1 or 3, H, W]`` in [0, 1], before any whitening."""
        channels, size = self.config.channels, self.config.size
        if images.ndim != 4 or images.shape[1] not in (1, channels):
            raise InputError(
                f"this encoder takes pictures [B, 1 or {channels}, H, W] in [0, 1]; received {list(images.shape)}."
            )
        if images.shape[1] != channels:
            images = images.expand(-1, channels, -1, -1)
        if tuple(images.shape[-2:]) != (size, size):
            images = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
        images = (images - self.mean) / self.std
        return full_precision(self.network(images)).flatten(1)

    def posterior(self, images: Tensor) -> Posterior:
        raise InputError(f"{self.config.backbone} has no latent, so no posterior; pretrain a guided VAE for one.")

    def forward(self, images: Tensor) -> Tensor:
        whitened: Tensor = self.whitening(self.maps(images))
        return whitened


def timm_about(source: str) -> dict[str, Any]:
    """Facts that timm has on the weights of ``timm:NAME`` or ``timm:NAME.TAG``; empty if it says nothing.

    Raises:
        InputError: if timm has no weights of that tag.
    """
    from timm.models import get_pretrained_cfg

    name = source.partition(":")[2]
    try:
        known = get_pretrained_cfg(name)
    except RuntimeError as error:  # of a tag alone: the network's name is looked up before
        raise InputError(
            f"timm has no weights named {name[:100]!r}; its own list_pretrained() names those of each network."
        ) from error
    return known.to_dict() if known else {}


def sketch_foreign(source: str) -> dict[str, Tensor]:
    """Names, shapes and kinds of the weights of ``timm:NAME`` or ``torchvision:NAME``; nothing is allocated.

    Raises:
        InputError: if the package is missing or has no such network.
    """
    provider, base, _ = parted(source)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return network_of(f"{provider}:{base}").state_dict()


def describe_foreign(source: str) -> tuple[ForeignConfig, dict[str, Any]]:
    """The config of ``timm:NAME`` or ``torchvision:NAME``, and what is known of its weights; nothing is fetched.

    Raises:
        InputError: if the package is missing or has no such network.
    """
    provider, base, tag = parted(source)
    about: dict[str, Any] = {"licence": "unknown"}
    if provider == "timm":
        from timm.data import resolve_data_config

        cfg = timm_about(source)
        data = resolve_data_config(pretrained_cfg=cfg)
        channels, size, _ = data["input_size"]
        mean, std = list(data["mean"]), list(data["std"])
        about = {"weights": cfg.get("tag") or tag or "default", "licence": cfg.get("license") or "unknown"}
    else:
        weights = package_of(provider).get_model_weights(base).DEFAULT
        shape = weights.transforms()
        channels, size, mean, std = 3, shape.crop_size[0], list(shape.mean), list(shape.std)
        about = {"weights": str(weights), "licence": "unknown (BSD-3-Clause code; the weights' own terms apply)"}
    with refusals_of(source), torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = network_of(f"{provider}:{base}").eval()
        length = int(network(torch.empty(1, channels, size, size)).flatten(1).shape[1])
    config = ForeignConfig(
        backbone=f"{provider}:{base}",
        width=length,
        channels=channels,
        size=size,
        polarity="light",
        latent=0,
        features=["backbone"],
        channel_mean=mean,
        channel_std=std,
        length=length,
    )
    return config, about


def load_foreign(source: str, pretrained: bool = True) -> ForeignEncoder:
    """``timm:NAME`` or ``torchvision:NAME``, in evaluation mode.

    Args:
        pretrained: fetch the package's default weights (or the ones that timm's ``NAME.TAG`` names) into its own
            cache; False leaves the network as initialised.

    Raises:
        InputError: if the package, the network or the weights cannot be had.
    """
    config, _ = describe_foreign(source)
    return ForeignEncoder(config, pretrained_network(source) if pretrained else None).eval()
