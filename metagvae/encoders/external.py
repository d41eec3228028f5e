"""Networks of timm and torchvision as encoders: ``timm:NAME``, ``torchvision:NAME``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from episodes import InputError
from episodes.untrusted.typed import check_types
from metagvae.encoders.encoder import ENCODERS, Encoder, EncoderConfig, Posterior
from metagvae.encoders.norm import full_precision
from metagvae.encoders.whitening import Whitening

PROVIDERS = ("timm", "torchvision")
MAX_LENGTH, MAX_SIDE = 65_536, 1024
_COUNTS = (torch.arange, torch.linspace, torch.tensor)
_OLD_DENSE = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


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
        if name not in _names(provider):
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
        self.network = network or _network(config.backbone)
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


def _package(provider: str) -> ModuleType:
    """timm, or torchvision.models."""
    try:
        return import_module("timm" if provider == "timm" else "torchvision.models")
    except ImportError as error:
        raise InputError(f"{provider}:NAME needs the package {provider}; pip install {provider}.") from error


def _names(provider: str) -> list[str]:
    package = _package(provider)
    names: list[str] = package.list_models() if provider == "timm" else package.list_models(module=package)
    return names


def _network(source: str) -> nn.Module:
    """The network without its last layer, weights as initialised; nothing is fetched."""
    provider, _, name = source.partition(":")
    package = _package(provider)
    if provider == "timm":
        with _refusals(source):
            return _with_counts(lambda: package.create_model(name, pretrained=False, num_classes=0))
    network = _torchvision_network(name)
    _cut(network, name)
    return network


def _torchvision_network(name: str) -> nn.Module:
    """A whole network of torchvision, built as its default weights need it and initialised at random."""
    package = _package("torchvision")
    with _refusals(f"torchvision:{name}"), torch.random.fork_rng(devices=[]):
        return _with_counts(lambda: package.get_model(name, weights=None, **_implied(name)))


def _implied(name: str) -> dict[str, Any]:
    """The constructor's arguments that torchvision's default weights of a network imply.

    torchvision sets them itself only where it is given the weights and fetches them.
    """
    about = _package("torchvision").get_model_weights(name).DEFAULT.meta
    arguments: dict[str, Any] = {"num_classes": len(about["categories"])}
    if name in ("googlenet", "inception_v3"):  # both take pictures normalised another way
        arguments.update(transform_input=True, aux_logits=True, init_weights=False)
    elif name.startswith("vit_"):
        arguments["image_size"] = about["min_size"][0]
    elif name.startswith("maxvit"):
        arguments["input_size"] = about["min_size"]
    return arguments


@contextmanager
def _refusals(source: str) -> Iterator[None]:
    """Within it, whatever another package raises is one sentence about its network."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each network checks its arguments in its own way
        raise InputError(
            f"{source} cannot be built as an encoder ({_told(error)}); choose another network of list_models()."
        ) from error


def _told(error: Exception) -> str:
    """An error's kind and message in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class _CountsOnCpu(TorchFunctionMode):
    """Within it, numbers that are counted or listed are made on the CPU, whatever device all else is made on."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        return func(*args, **({"device": "cpu", **given} if func in _COUNTS else given))


def _with_counts(make: Callable[[], nn.Module]) -> nn.Module:
    """``make()``; a network that reads its widths off a tensor, as RegNet does, can be made on torch's meta device too.

    The meta device holds no values. Only what is counted or listed is made on the CPU, so a sketch stays small.
    """
    try:
        return make()
    except NotImplementedError:
        with _CountsOnCpu():
            return make()


def _cut(network: nn.Module, name: str) -> None:
    """Puts the identity in the place of the last linear layer, the classifier."""
    if hasattr(network, "aux_logits"):  # its further classifiers stay among the weights, and answer no more in training
        network.aux_logits = False  # type: ignore[assignment]
    linear = [path for path, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise InputError(f"torchvision:{name} does not end in a linear layer, so it cannot be used as an encoder.")
    owner, _, last = linear[-1].rpartition(".")
    setattr(network.get_submodule(owner), last, nn.Identity())


def _known(source: str) -> tuple[str, str, str]:
    """Provider, network and the tag of its weights, in which timm's names end; raises `InputError` if unknown."""
    provider, _, name = source.partition(":")
    base, _, tag = name.partition(".")
    if base not in _names(provider):
        raise InputError(f"{provider} has no classifier named {base[:100]!r}; its own list_models() names them.")
    return provider, base, tag


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
    provider, base, _ = _known(source)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return _network(f"{provider}:{base}").state_dict()


def describe_foreign(source: str) -> tuple[ForeignConfig, dict[str, Any]]:
    """The config of ``timm:NAME`` or ``torchvision:NAME``, and what is known of its weights; nothing is fetched.

    Raises:
        InputError: if the package is missing or has no such network.
    """
    provider, base, tag = _known(source)
    about: dict[str, Any] = {"licence": "unknown"}
    if provider == "timm":
        from timm.data import resolve_data_config

        cfg = timm_about(source)
        data = resolve_data_config(pretrained_cfg=cfg)
        channels, size, _ = data["input_size"]
        mean, std = list(data["mean"]), list(data["std"])
        about = {"weights": cfg.get("tag") or tag or "default", "licence": cfg.get("license") or "unknown"}
    else:
        weights = _package(provider).get_model_weights(base).DEFAULT
        shape = weights.transforms()
        channels, size, mean, std = 3, shape.crop_size[0], list(shape.mean), list(shape.std)
        about = {"weights": str(weights), "licence": "unknown (BSD-3-Clause code; the weights' own terms apply)"}
    with _refusals(source), torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = _network(f"{provider}:{base}").eval()
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


def _new_names(tensors: Mapping[str, Tensor], name: str) -> Mapping[str, Tensor]:
    """Weights under the names of torchvision's modules; its files of DenseNets have dots that older ones had."""
    if not name.startswith("densenet"):
        return tensors
    return {_OLD_DENSE.sub(r"\1\2", key): value for key, value in tensors.items()}


def load_foreign(source: str, pretrained: bool = True) -> ForeignEncoder:
    """``timm:NAME`` or ``torchvision:NAME``, in evaluation mode.

    Args:
        pretrained: fetch the package's default weights (or the ones that timm's ``NAME.TAG`` names) into its own
            cache; False leaves the network as initialised.

    Raises:
        InputError: if the package, the network or the weights cannot be had.
    """
    config, _ = describe_foreign(source)
    provider, _, name = source.partition(":")
    network: nn.Module | None = None
    if pretrained:
        package = _package(provider)
        try:
            if provider == "timm":
                network = package.create_model(name, pretrained=True, num_classes=0)
            else:
                weights = package.get_model_weights(name).DEFAULT
                full = _torchvision_network(name)
                # with weights only: no code in the file is run
                tensors = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
                full.load_state_dict(_new_names(tensors, name))
                _cut(full, name)
                network = full
        except Exception as error:  # each package raises its own kinds for what cannot be fetched
            raise InputError(
                f"the weights of {source} cannot be fetched ({_told(error)}). "
                "Without a network, bring them in as an encoder folder: metagvae export-encoder where there is one."
            ) from error
    return ForeignEncoder(config, network).eval()
