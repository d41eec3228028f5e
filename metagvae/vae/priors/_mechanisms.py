"""A causal graph of factors, and the mechanism by which one factor's units follow from those of its causes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from episodes.errors import InputError
from metagvae.encoders.units import Units

Graph = Mapping[str, Sequence[str]]


def causal_order(graph: Graph) -> list[str]:
    """The factors of a graph of parents, each after its causes.

    Raises:
        InputError: if a parent is no factor of the graph, or factors cause each other in a circle.

    Example:
        >>> causal_order({"shadow": ["light"], "light": []})
        ['light', 'shadow']
    """
    order: list[str] = []
    for factor, parents in graph.items():
        unknown = [parent for parent in parents if parent not in graph]
        if unknown or len(set(parents)) < len(parents):
            raise InputError(
                f"vae.prior: the graph must name each cause of {factor!r} once, and with its own causes, [] if it has "
                f"none; received {', '.join(map(str, parents))[:200]}."
            )
    while len(order) < len(graph):
        ready = [name for name in graph if name not in order and set(graph[name]) <= set(order)]
        if not ready:
            circle = [name for name in graph if name not in order]
            raise InputError(
                f"vae.prior: the graph must have no circle; {', '.join(circle)[:200]} cause each other. Take an arrow "
                "out."
            )
        order += ready
    return order


class Mechanism(nn.Module):
    """A factor: its units, those of its causes, and how the one follows from the other.

    Args:
        own, causes: latent unit numbers.
        seen: how many numbers its density given the label sees; None without labels.
        spread: standard deviation with which that density begins around the label; None for any beginning.
    """

    def __init__(
        self, own: Sequence[int], causes: Sequence[int], seen: int | None, hidden: int, spread: float | None = None
    ) -> None:
        super().__init__()
        self.own, self.causes = Units(own), Units(causes)
        self.network = _affine(len(own), len(causes), hidden)
        self.of_label = None if seen is None else _affine(len(own), seen, hidden)
        self.with_causes, self.spread = seen is not None and seen > 1, spread

    def put(self, z: Tensor, block: Tensor) -> Tensor:
        """``z`` with this factor's units set."""
        return z.index_copy(-1, self.own.numbers, block)

    def affine(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and log of the scale that bring this factor's units of ``[B, latent]`` to noise, ``[B, units]``."""
        causes = self.causes(z)
        found = self.network(causes if causes.shape[-1] else None).base
        return found.shift.expand(len(z), -1), found.log_scale.expand(len(z), -1)

    def affine_of_label(self, label: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """As `affine`, given the label ``[B, 1]``."""
        assert self.of_label is not None
        found = self.of_label(torch.cat((label, self.causes(z)), -1) if self.with_causes else label).base
        if self.spread is None:
            return found.shift, found.log_scale
        return found.shift - label / self.spread, found.log_scale - math.log(self.spread)


def zuko_flows() -> Any:
    """zuko's flows.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import zuko.flows
    except ImportError as error:
        raise InputError(
            "vae.prior: causal_flow needs the package zuko, which is not installed. Install it by `pip install zuko`."
        ) from error
    return zuko.flows


def _affine(units: int, seen: int, hidden: int) -> Any:
    """A scale and a shift for each unit, made of ``seen`` numbers by a network of one hidden layer."""
    made = zuko_flows().ElementWiseTransform(units, seen, hidden_features=(hidden,), activation=nn.ELU)
    if not seen:
        for part in made.phi:  # it draws them; a root begins as the standard normal
            nn.init.zeros_(part)
    return made
