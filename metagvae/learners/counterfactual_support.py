"""Support images drawn again under other causes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod

import torch
from torch import Tensor, nn

from episodes import InputError
from metagvae.encoders.controls import Pixels
from metagvae.encoders.norm import full_precision
from metagvae.learners.base import Learner
from metagvae.vae.guided_vae import GuidedVAE

MOST = 1024  # copies of a support image


class CounterfactualSupport(Learner):
    """A query goes to the class of its nearest support image, each of which is also drawn under other causes.

    A support image of one light says little of its class under another. `GuidedVAE.counterfactual` draws it under
    several lights, all else equal; a query is then compared with copies that have its own light. Logits are minus the
    squared distance to the nearest copy of a class. The queries are seen as they are, so the learner is inductive.

    Args:
        vae: with a causal prior, whose labels told the factors.
        do: how many numbers, evenly spread over what training images showed, each factor is set to. Several factors
            are set together, in every combination of their numbers.
        encoder: images ``[B, C, H, W]`` to the features that are compared; their pixels if None.

    Raises:
        InputError: if the prior knows no such factor, or no number of it, or there would be over 1,024 copies.
    """

    name = "counterfactual support"

    def __init__(self, vae: GuidedVAE, do: Mapping[str, int], encoder: nn.Module | None = None) -> None:
        super().__init__(Pixels() if encoder is None else encoder)
        self.vae, self.do = vae, dict(do)
        if not do or min(do.values()) < 1:
            raise InputError(
                f"counterfactual support needs a factor and how many numbers to set it to, such as light=8; received "
                f"{', '.join(f'{name}={count}' for name, count in do.items()) or 'nothing'}."
            )
        if prod(do.values()) > MOST:
            raise InputError(
                f"counterfactual support draws at most {MOST:,} copies of a support image, one for each combination of "
                f"numbers; received {', '.join(f'{name}={count}' for name, count in do.items())}, "
                f"{prod(do.values()):,} copies. Set the factors to fewer numbers."
            )
        ranges = vae.prior.settings()
        unknown = [name for name in do if name not in ranges]
        if unknown:
            raise InputError(
                f"the prior '{vae.prior.name}' has no numbers of {', '.join(unknown)[:200]}; it has those of "
                f"{', '.join(ranges) or 'none'}."
            )
        numbers = (torch.linspace(*ranges[name], count).tolist() for name, count in do.items())
        self.settings = [dict(zip(do, each, strict=True)) for each in product(*numbers)]

    def adapt(self, support: Tensor) -> Tensor:
        """Features of all copies, ``[T, N, K * copies, D]``."""
        images = support.flatten(0, 2)
        copies = []
        for each in self.settings:
            do = {name: images.new_full((len(images),), number) for name, number in each.items()}
            copies.append(self._features(self.vae.counterfactual(images, do)))
        return torch.stack(copies, 1).view(*support.shape[:2], support.shape[2] * len(copies), -1)

    def predict(self, state: Tensor, query: Tensor) -> Tensor:
        asked = self._features(query.flatten(0, 2)).view(len(query), -1, state.shape[-1])
        apart = torch.cdist(asked, state.flatten(1, 2)).square()
        return -apart.view(*asked.shape[:2], state.shape[1], -1).amin(-1)

    def _features(self, images: Tensor) -> Tensor:
        return full_precision(self.encoder(images)).flatten(1)
