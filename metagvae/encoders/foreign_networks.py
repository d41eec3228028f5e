"""Networks of timm and torchvision, their last layer taken off: which there are, how they are built and fetched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from episodes import InputError

PROVIDERS = ("timm", "torchvision")
_COUNTS = (torch.arange, torch.linspace, torch.tensor)
_OLD_DENSE = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def package_of(provider: str) -> ModuleType:
    """timm, or torchvision.models.

    Raises:
        InputError: if it is not installed.
    """
    try:
        return import_module("timm" if provider == "timm" else "torchvision.models")
    except ImportError as error:
        raise InputError(f"{provider}:NAME needs the package {provider}; pip install {provider}.") from error


def names_of(provider: str) -> list[str]:
    """The networks that a package has."""
    package = package_of(provider)
    names: list[str] = package.list_models() if provider == "timm" else package.list_models(module=package)
    return names


def network_of(source: str) -> nn.Module:
    """The network without its last layer, weights as initialised; nothing is fetched.

    Raises:
        InputError: if the package is missing, has no such network, or cannot build it.
    """
    provider, _, name = source.partition(":")
    package = package_of(provider)
    if provider == "timm":
        with refusals_of(source):
            return _with_counts(lambda: package.create_model(name, pretrained=False, num_classes=0))
    network = _torchvision_network(name)
    _cut(network, name)
    return network


def _torchvision_network(name: str) -> nn.Module:
    """A whole network of torchvision, built as its default weights need it and initialised at random."""
    package = package_of("torchvision")
    with refusals_of(f"torchvision:{name}"), torch.random.fork_rng(devices=[]):
        return _with_counts(lambda: package.get_model(name, weights=None, **_implied(name)))


def _implied(name: str) -> dict[str, Any]:
    """The constructor's arguments that torchvision's default weights of a network imply.

    torchvision sets them itself only where it is given the weights and fetches them.
    """
    about = package_of("torchvision").get_model_weights(name).DEFAULT.meta
    arguments: dict[str, Any] = {"num_classes": len(about["categories"])}
    if name in ("googlenet", "inception_v3"):  # both take pictures normalised another way
        arguments.update(transform_input=True, aux_logits=True, init_weights=False)
    elif name.startswith("vit_"):
        arguments["image_size"] = about["min_size"][0]
    elif name.startswith("maxvit"):
        arguments["input_size"] = about["min_size"]
    return arguments


@contextmanager
def refusals_of(source: str) -> Iterator[None]:
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


def parted(source: str) -> tuple[str, str, str]:
    """Provider, network and the tag of its weights, in which timm's names end.

    Raises:
        InputError: if the package is missing or has no such network.
    """
    provider, _, name = source.partition(":")
    base, _, tag = name.partition(".")
    if base not in names_of(provider):
        raise InputError(f"{provider} has no classifier named {base[:100]!r}; its own list_models() names them.")
    return provider, base, tag


def _new_names(tensors: Mapping[str, Tensor], name: str) -> Mapping[str, Tensor]:
    """Weights under the names of torchvision's modules; its files of DenseNets have dots that older ones had."""
    if not name.startswith("densenet"):
        return tensors
    return {_OLD_DENSE.sub(r"\1\2", key): value for key, value in tensors.items()}


def pretrained_network(source: str) -> nn.Module:
    """The network without its last layer, with the weights that its package fetches into its own cache.

    Raises:
        InputError: if the package, the network or the weights cannot be had.
    """
    provider, _, name = source.partition(":")
    package = package_of(provider)
    try:
        if provider == "timm":
            network: nn.Module = package.create_model(name, pretrained=True, num_classes=0)
            return network
        network = _torchvision_network(name)
        # with weights only: no code in the file is run
        tensors = package.get_model_weights(name).DEFAULT.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
        network.load_state_dict(_new_names(tensors, name))
        _cut(network, name)
        return network
    except Exception as error:  # each package raises its own kinds for what cannot be fetched
        raise InputError(
            f"the weights of {source} cannot be fetched ({_told(error)}). "
            "Without a network, bring them in as an encoder folder: metagvae export-encoder where there is one."
        ) from error
