"""easyfsl 1.5 (Bennequin, 2021): its methods as our learners, our encoders as its backbones.

easyfsl is imported when a function needs it, never before.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from episodes import InputError
from metagvae.encoders.norm import norm_policy
from metagvae.learners.base import FeatureLearner

PREFIX = "easyfsl:"
_GIVEN = ("self", "args", "kwargs", "backbone", "feature_centering", "feature_dimension", "attention_module")


def require_easyfsl() -> Any:
    """The package ``easyfsl``.

    Raises:
        InputError: with the command that installs it.
    """
    try:
        import easyfsl.methods
        import easyfsl.modules
    except ImportError as error:
        raise InputError(f"easyfsl cannot be imported ({error}). Install it: pip install easyfsl==1.5.0") from error
    return easyfsl


def method_names() -> list[str]:
    """The names of easyfsl's methods, sorted: BDCSPN, FEAT, Finetune, ...

    Raises:
        InputError: if easyfsl is not installed.
    """
    methods = require_easyfsl().methods
    found = (name for name, cls in vars(methods).items() if inspect.isclass(cls))
    return sorted(name for name in found if name != "FewShotClassifier" and hasattr(methods, name))


class EasyfslBackbone(nn.Module):
    """An encoder as easyfsl's methods call it; made by `as_easyfsl_backbone`."""

    def __init__(self, encoder: nn.Module, maps: bool) -> None:
        super().__init__()
        self.encoder, self.maps = encoder, maps

    def forward(self, images: Tensor) -> Tensor:
        """Features ``[B, D]`` of pictures ``[B, C, H, W]`` in [0, 1]; of ``maps``, ``[B, D, 1, 1]``."""
        features: Tensor = self.encoder(images)
        return features[:, :, None, None] if self.maps else features


def as_easyfsl_backbone(encoder: nn.Module, maps: bool = False) -> EasyfslBackbone:
    """The encoder as the ``backbone`` of easyfsl's methods, its parameters the encoder's own.

        method = easyfsl.methods.SimpleShot(as_easyfsl_backbone(load_encoder("handwriting")))
        method.process_support_set(support, support_labels)
        scores = method(query)

    Args:
        encoder: pictures ``[B, C, H, W]`` in [0, 1] to features ``[B, D]``.
        maps: return ``[B, D, 1, 1]``, maps of one cell, which RelationNetworks asks for.

    Raises:
        InputError: if the encoder's norm policy needs to know which pictures are support: easyfsl does not say.
    """
    policy = norm_policy(encoder)
    if policy not in ("running", "group", "none"):
        raise InputError(
            f"the encoder has the norm policy '{policy}', which normalises a task's pictures together, and easyfsl "
            "does not say what belongs to a task; use one with 'running' or 'group'."
        )
    return EasyfslBackbone(encoder, maps)


class EasyfslLearner(FeatureLearner):
    """A method of easyfsl as a learner: its head on an encoder's features, one task after the other.

    A method with weights of its own (FEAT's attention, MatchingNetworks' LSTMs, RelationNetworks' convolutions) starts
    with them untrained, and trains in the same loop as every learner. Those that fine-tune prototypes (Finetune, TIM,
    TransductiveFinetuning) do it within `ask_head`, and give the encoder no gradient.

    Args:
        encoder: pictures to features ``[B, D]``; it must say its ``feature_size`` where the method has weights.
        method: easyfsl's name of it, such as ``SimpleShot``.
        options: of the method's constructor, such as ``fine_tuning_steps``.

    Raises:
        InputError: if there is no such method or option, or easyfsl is not installed.

    Example:
        >>> import torch
        >>> from metagvae import Encoder, EncoderConfig
        >>> from metagvae.interop import EasyfslLearner
        >>> learner = EasyfslLearner(Encoder(EncoderConfig(width=8, latent=6)), "SimpleShot").eval()
        >>> learner.predict(learner.adapt(torch.rand(2, 5, 1, 1, 28, 28)), torch.rand(2, 5, 3, 1, 28, 28)).shape
        torch.Size([2, 15, 5])
    """

    def __init__(self, encoder: nn.Module, method: str, **options: Any) -> None:
        super().__init__(encoder)
        known = method_names()
        if method not in known:
            raise InputError(f"easyfsl has no method {repr(method)[:100]}; known: {', '.join(known)}.")
        cls = getattr(require_easyfsl().methods, method)
        _check_options(cls, options)
        self.name = f"{PREFIX}{method}"
        self.method = cls(**_weights(cls, encoder), **options)
        self.sees_queries = bool(cls.is_transductive())
        self.maps = "relation_module" in _parameters(cls)
        self.fine_tunes = "fine_tuning_lr" in _parameters(cls) and not hasattr(cls, "compute_optimal_transport")

    def fit_head(self, support: Tensor) -> Tensor:
        """The support features ``[T, N, K, D]`` themselves: a method of easyfsl holds one task at a time.

        Raises:
            InputError: if a gradient is asked for of a method that fine-tunes prototypes.
        """
        if self.fine_tunes and support.requires_grad:
            raise InputError(
                f"{self.name} fine-tunes its prototypes and gives the encoder no gradient; evaluate it on a frozen "
                "encoder, or train another learner."
            )
        return support

    def ask_head(self, state: Tensor, query: Tensor) -> Tensor:
        """Scores ``[T, N * Q, N]`` of query features ``[T, N, Q, D]``, on the method's own scale."""
        ways = torch.arange(state.shape[1], device=state.device).repeat_interleave(state.shape[2])
        scores = []
        for support, asked in zip(state.flatten(1, 2), query.flatten(1, 2), strict=True):
            if self.maps:
                support, asked = support[:, :, None, None], asked[:, :, None, None]
            self.method.process_support_set(support, ways)
            scores.append(self.method(asked))
        return torch.stack(scores)


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The parameters of a class's constructor and of those it passes the rest on to."""
    found: dict[str, inspect.Parameter] = {}
    for kind in cls.__mro__:
        if kind is nn.Module:
            break
        if "__init__" in vars(kind):
            found = {**inspect.signature(vars(kind)["__init__"]).parameters, **found}
    return found


def _check_options(cls: type, options: dict[str, Any]) -> None:
    parameters = {name: p for name, p in _parameters(cls).items() if name not in _GIVEN}
    unknown = sorted(set(options) - set(parameters))
    if unknown:
        raise InputError(
            f"easyfsl's {cls.__name__} has no option {repr(unknown[0])[:100]}; allowed: {', '.join(parameters)}."
        )
    for name, value in options.items():
        kind = parameters[name].annotation
        fits = isinstance(value, bool) == (kind is bool) and isinstance(value, int | kind)
        if kind in (int, float, bool) and not fits:
            raise InputError(f"easyfsl's {cls.__name__}: {name} must be of type {kind.__name__}; received {value!r}.")


def _weights(cls: type, encoder: nn.Module) -> dict[str, Any]:
    """Arguments that a method's constructor needs to build weights of its own."""
    wanted = _parameters(cls)
    if "attention_module" not in wanted and "feature_dimension" not in wanted:
        return {}
    size = getattr(encoder, "feature_size", None)
    if not isinstance(size, int):
        raise InputError(
            f"easyfsl's {cls.__name__} builds weights for the encoder's features and needs their number; give "
            f"{type(encoder).__name__} an integer attribute feature_size."
        )
    if "feature_dimension" in wanted:
        return {"feature_dimension": size}
    return {"attention_module": require_easyfsl().modules.MultiHeadAttention(1, size, size, size)}
