"""The mean of the weights that a training passes through (Polyak & Juditsky, 1992; Izmailov et al., UAI 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from metagvae.encoders import spectral_norm


class AveragedWeights:
    """A running mean of a module's weights and running averages, kept beside them.

    With n states in it, the next one enters with the weight ``max(1 - decay, 1 / (n + 1))``: the plain mean at first,
    and for good if ``decay`` is 1 (stochastic weight averaging); else an exponential mean of the last
    ``1 / (1 - decay)`` or so.

    Args:
        module: whose state is averaged. Whole numbers and switches in it are not: the newest is taken.
        decay: in (0, 1].
        begin: steps that are left out before the first state.

    Example:
        >>> import torch
        >>> from metagvae.training.averaged_weights import AveragedWeights
        >>> layer = torch.nn.Linear(1, 1, bias=False)
        >>> average = AveragedWeights(layer, decay=1.0)
        >>> for step, value in enumerate((1.0, 2.0, 6.0)):
        ...     _ = layer.weight.data.fill_(value)
        ...     average.add(step)
        >>> with average.in_place():
        ...     print(layer.weight.item())
        3.0
        >>> layer.weight.item()
        6.0
    """

    def __init__(self, module: nn.Module, decay: float, begin: int = 0) -> None:
        self.module, self.decay, self.begin = module, decay, begin
        self.count, self.mean = 0, copied(module)

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Takes in the module's state after step ``step`` (from 0)."""
        if step < self.begin:
            return
        share = max(1 - self.decay, 1 / (self.count + 1))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.mean[name].lerp_(value, share)
            else:
                self.mean[name].copy_(value)
        self.count += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module with the mean in place of its own state, which comes back afterwards."""
        if not self.count:
            yield
            return
        own = copied(self.module)
        self.module.load_state_dict(self.mean)
        spectral_norm.find(self.module)  # of the mean weight; a mean of unit vectors is none
        try:
            yield
        finally:
            self.module.load_state_dict(own)

    def state(self) -> dict[str, Any]:
        """``mean``, the tensors by name, and ``count``, the states in it."""
        return {"mean": self.mean, "count": self.count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self.count = state["count"]
        for name, value in self.mean.items():
            value.copy_(state["mean"][name])


def copied(module: nn.Module) -> dict[str, Tensor]:
    """A module's state, in memory of its own."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
