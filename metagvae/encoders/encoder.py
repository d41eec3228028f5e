"""Encoder: a backbone and a Gaussian latent whose units have names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from episodes import InputError
from episodes.batch_share import normal_like
from episodes.registry import Registry
from episodes.untrusted.typed import check_types
from metagvae.encoders.backbones import BACKBONES
from metagvae.encoders.norm import POLICIES, full_precision
from metagvae.encoders.units import Units

MAX_LATENT = 4096


def _short(value: object) -> str:
    """A value in an error message, however long a stranger made it."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _listed(names: list[str]) -> str:
    return ", ".join([str(name)[:40] for name in names[:20]] + (["..."] if len(names) > 20 else []))


ENCODERS: Registry[type[Encoder]] = Registry("encoder kind", "metagvae.encoders", given=("config",))


@dataclass
class EncoderConfig:
    """Everything needed to rebuild an encoder; of kind ``conv``. Another kind has a subclass of its own.

    Args:
        backbone: ``conv4``, ``conv4_doubling``, ``conv4_places``, ``resnet12``, ``ding``, ``patches`` or ``infogan``.
        width: feature maps of the first block.
        channels, size: of the pictures; they are ``[B, channels, size, size]`` in [0, 1].
        polarity: what a large value means, ``ink`` (bright strokes on black) or ``light`` (photographs).
        mean, std: subtracted and divided by, inside the encoder.
        latent: units of the latent.
        norm: policy of the normalisation layers.
        units: latent unit numbers by group name; together they cover every unit once.
        features: what a call returns, in this order, side by side: ``latent`` (all posterior means), a group
            of ``units``, or ``backbone``.

    Example:
        >>> from metagvae import EncoderConfig
        >>> config = EncoderConfig(latent=6, units={"geometry": [0, 1], "content": [2, 3, 4, 5]}, features=["content"])
        >>> config.check()
    """

    backbone: str = "conv4"
    width: int = 64
    channels: int = 1
    size: int = 28
    polarity: str = "ink"
    mean: float = 0.0
    std: float = 1.0
    latent: int = 64
    norm: str = "running"
    units: dict[str, list[int]] = field(default_factory=dict)
    features: list[str] = field(default_factory=lambda: ["latent"])

    def check(self) -> None:
        """Raises `InputError` if a value is not allowed."""
        check_types(type(self), vars(self), "encoder.")
        BACKBONES.find(self.backbone, "encoder.")
        if not isinstance(self.norm, str) or self.norm not in POLICIES:
            raise InputError(f"unknown norm policy {_short(self.norm)}; allowed: {', '.join(POLICIES)}.")
        for name, value, low, high in (
            ("width", self.width, 1, 1024),
            ("channels", self.channels, 1, 16),
            ("size", self.size, 16, 512),
            ("latent", self.latent, 1, MAX_LATENT),
        ):
            if type(value) is not int or not low <= value <= high:
                raise InputError(f"encoder.{name} must be between {low} and {high}; received {_short(value)}.")
        for name, number in (("mean", self.mean), ("std", self.std)):
            if not isinstance(number, int | float) or not math.isfinite(number):
                raise InputError(f"encoder.{name} must be a number; received {_short(number)}.")
        if not self.std > 0:
            raise InputError(f"encoder.std must be positive; received {self.std}.")
        if self.polarity not in ("ink", "light"):
            raise InputError(f"encoder.polarity must be 'ink' or 'light'; received {_short(self.polarity)}.")
        if not isinstance(self.units, dict) or not all(isinstance(group, list) for group in self.units.values()):
            raise InputError(f"encoder.units must be lists of numbers by name; received {_short(self.units)}.")
        units = [unit for group in self.units.values() for unit in group]
        if not all(type(unit) is int for unit in units) or sorted(units) != list(range(self.latent)):
            raise InputError(
                f"encoder.units must name each of the {self.latent} latent units once; received groups of "
                f"{_short({name: len(group) for name, group in self.units.items()})}."
            )
        self.check_features(self.features)

    def check_features(self, names: list[str]) -> None:
        """Raises `InputError` unless ``names`` are groups of units, ``latent`` or ``backbone``, each once."""
        allowed = ["latent", "backbone", *self.units]
        if not isinstance(names, list | tuple) or not names:
            raise InputError(f"features must name at least one of {_listed(allowed)}; received {_short(names)}.")
        for name in names:
            if name not in allowed:
                raise InputError(f"this encoder has no features {_short(name)}; allowed: {_listed(allowed)}.")
        if len(set(names)) < len(names):
            raise InputError(f"features must name each group once; received {_short(names)}.")


@dataclass(frozen=True)
class Posterior:
    """q(z|x) = N(mean, diag exp(log_var)); both ``[B, latent]``."""

    mean: Tensor
    log_var: Tensor

    def sample(self) -> Tensor:
        """A reparametrised draw ``[B, latent]`` from torch's generator."""
        return self.mean + normal_like(self.mean) * (0.5 * self.log_var).exp()

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) of latents ``[B, latent]``, summed over the units, ``[B]``."""
        squares = (z - self.mean).square() * (-self.log_var).exp()
        return -0.5 * (squares + self.log_var + math.log(2 * math.pi)).sum(-1)


@ENCODERS.register
class Encoder(nn.Module):
    """Pictures to features. ``encoder.units`` names the latent units, ``encoder.features`` what a call gives.

    A kind of encoder is a subclass under ``@ENCODERS.register``: its ``name`` is the ``kind`` in a folder's
    ``config.json``, ``settings`` the class of the config beside it; three abilities say what may be asked of it.

    Attributes:
        takes_any_size: whether a call brings pictures of other sizes and polarities to the encoder's own.
        has_posterior: whether there is a q(z|x), and so named units and a VAE around it.
        trainable: whether gradients reach its weights.
        exportable: whether one pass forward is all of a call, so that other programs can run it.

    Raises:
        InputError: if the config holds a value that is not allowed.

    Example:
        >>> import torch
        >>> from metagvae import Encoder, EncoderConfig
        >>> encoder = Encoder(EncoderConfig(width=8, latent=6, units={"geometry": [0, 1], "content": [2, 3, 4, 5]}))
        >>> encoder.features = ["content"]
        >>> encoder(torch.rand(3, 1, 28, 28)).shape
        torch.Size([3, 4])
    """

    name: ClassVar[str] = "conv"
    settings: ClassVar[type[EncoderConfig]] = EncoderConfig
    takes_any_size: ClassVar[bool] = False
    has_posterior: ClassVar[bool] = True
    trainable: ClassVar[bool] = True
    exportable: ClassVar[bool] = True

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        if config.units == {} and isinstance(config.latent, int) and config.latent <= MAX_LATENT:
            config = replace(config, units={"content": list(range(config.latent))})
        config.check()
        # a copy: two encoders of one config must not share what a call returns
        self.config = config = replace(config, units=dict(config.units), features=list(config.features))
        self.backbone = self._new_backbone()
        self.backbone_size = self.backbone.out_channels * self.backbone.side(config.size) ** 2
        self.to_mean = nn.Linear(self.backbone_size, config.latent)
        self.to_log_var = nn.Linear(self.backbone_size, config.latent)
        # a posterior that starts narrow: the decoder sees signal before noise
        nn.init.zeros_(self.to_log_var.weight)
        nn.init.constant_(self.to_log_var.bias, -2.0)
        self._groups = nn.ModuleList([Units(units) for units in config.units.values()])
        self.features = list(config.features)

    def _new_backbone(self) -> Any:
        return BACKBONES[self.config.backbone](self.config.channels, self.config.width, self.config.norm)

    @property
    def units(self) -> dict[str, list[int]]:
        """Latent unit numbers by group name, such as ``geometry`` and ``content``."""
        return self.config.units

    @property
    def features(self) -> list[str]:
        """The features that a call returns; set it to choose: ``latent``, ``backbone`` or a group of `units`."""
        return self.config.features

    @features.setter
    def features(self, names: list[str]) -> None:
        self.config.check_features(names)
        self.config.features = list(names)

    @property
    def feature_size(self) -> int:
        """Length of what a call returns per picture."""
        sizes = {"backbone": self.backbone_size, "latent": self.config.latent}
        sizes.update({name: len(units) for name, units in self.units.items()})
        return sum(sizes[name] for name in self.features)

    def maps(self, images: Tensor) -> Tensor:
        """Flattened backbone features ``[B, backbone_size]`` of pictures ``[B, C, H, W]`` in [0, 1].

        Raises:
            InputError: if the pictures' channels or size are not the encoder's.
        """
        config = self.config
        expected = (config.channels, config.size, config.size)
        if tuple(images.shape[-3:]) != expected or images.ndim != 4:
            raise InputError(
                f"this encoder takes pictures [B, {config.channels}, {config.size}, {config.size}] in [0, 1]; "
                f"received {list(images.shape)}. Resize them, or load the data set with --data.size {config.size}."
            )
        if config.mean != 0.0 or config.std != 1.0:
            images = (images - config.mean) / config.std
        maps: Tensor = self.backbone(images)
        return maps.flatten(1)

    def posterior(self, images: Tensor) -> Posterior:
        """q(z|x) of pictures ``[B, C, H, W]`` in [0, 1]."""
        maps = self.maps(images)
        mean, log_var = full_precision(self.to_mean(maps)), full_precision(self.to_log_var(maps))
        return Posterior(mean, log_var.clamp(-12, 8))

    def forward(self, images: Tensor) -> Tensor:
        """Features ``[B, feature_size]`` of pictures ``[B, C, H, W]`` in [0, 1]; posterior means, no noise."""
        maps = self.maps(images)
        return self.chosen_features(maps, self.to_mean(maps) if self.features != ["backbone"] else None)

    def chosen_features(self, maps: Tensor, mean: Tensor | None) -> Tensor:
        """`features` side by side, ``[B, feature_size]``, out of the backbone's and the posterior means."""
        parts = []
        for name in self.features:
            if name == "backbone":
                parts.append(maps)
            else:
                assert mean is not None
                parts.append(mean if name == "latent" else self._groups[list(self.units).index(name)](mean))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
