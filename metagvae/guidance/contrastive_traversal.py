"""Traversals of single units that can be told apart by their images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from episodes import InputError
from metagvae.encoders.norm import full_precision
from metagvae.guidance.base import GUIDANCES, Guidance, GuidanceContext, GuidanceInputs
from metagvae.guidance.shared_unit import SharedUnit


@GUIDANCES.register
class ContrastiveTraversal(Guidance):
    """The contrastive regulariser of InfoGAN-CR on a VAE's decoder (Lin et al., ICML 2020, section 3).

    Two latents are drawn that share one unit, and a network tells from their images which. Decoder and network lower
    one cross entropy. Under a normal prior any rotation of the latent has as good a set of axes, so this makes units
    easy to recognise and need not make them the factors of the images. The section ``adversary`` has uniform codes.

    Args:
        context: its units hold the groups.
        weight: of the cross entropy.
        start: share of the training after which it is in force.
        groups: of the units that may be shared; null takes content. The others are shared by every pair.
        width: of the network that tells.

    Example:
        >>> from metagvae.guidance import ContrastiveTraversal, GuidanceContext
        >>> context = GuidanceContext(channels=1, size=28, units={"content": [0, 1, 2, 3]})
        >>> guidance = ContrastiveTraversal(context, start=0.5)
        >>> guidance.contrast.head.out_features
        4
    """

    name = "contrastive_traversal"

    def __init__(
        self,
        context: GuidanceContext,
        weight: float = 5.0,
        start: float = 0.0,
        groups: Sequence[str] | None = None,
        width: int = 16,
    ) -> None:
        super().__init__()
        if weight < 0 or not 0 <= start <= 1 or not 1 <= width <= 1024:
            raise InputError(
                "contrastive_traversal needs weight >= 0, start in [0, 1] and width in [1, 1024]; received "
                f"{weight}, {start} and {width}."
            )
        unknown = [group for group in groups or () if group not in context.units]
        units = [unit for group in groups or ["content"] for unit in context.units.get(group, [])]
        if unknown or len(units) < 2:
            raise InputError(
                "contrastive_traversal needs groups with two units or more between them; received "
                f"{', '.join(groups or ['content'])[:200]} of {', '.join(context.units)}."
            )
        self.weight, self.start = weight, start
        self.contrast = SharedUnit(units, context.latent, context.channels, context.size, width)

    @classmethod
    def owned_units(cls, **options: Any) -> dict[str, int]:
        return {}

    def forward(self, inputs: GuidanceInputs) -> dict[str, Tensor]:
        begun = inputs.progress >= self.start
        assert inputs.draw is not None
        one, other, shared = self.contrast.pairs(*(inputs.draw(len(inputs.z)) for _ in range(2)))
        first, second = (full_precision(inputs.decoder(z)).sigmoid() for z in (one, other))
        # always computed: a captured step, and several processes, need the same terms at each step
        return {"shared": begun * self.weight * F.cross_entropy(self.contrast(first, second), shared)}
