"""Guidance for few-shot: warps of one picture tell content from geometry, without labels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from episodes import InputError
from episodes.augment import PARAMETERS
from episodes.precision import autocast_off
from metagvae.compute.batch_statistics import batch_rows
from metagvae.encoders.norm import full_precision
from metagvae.encoders.units import Units
from metagvae.guidance.base import GUIDANCES, Guidance, GuidanceContext, GuidanceInputs


@GUIDANCES.register
class WarpPairs(Guidance):
    """Content units know a picture again under any warp; geometry units tell how it was warped.

        L = contrast * L_content + prediction * L_geometry + inhibition * L_hidden

    - L_content: every warp in turn is the single support picture of its class, the other warps of that
      picture its queries, among all pictures of the batch: a one-shot episode in every role, on posterior
      means (prototypes of Snell et al., NeurIPS 2017; instance discrimination of Wu et al., CVPR 2018).
    - L_geometry: a linear map of the geometry units' means, less their average over a picture's warps, must
      be the warps' parameters, less theirs. That is the mean squared error over all pairs of warps: only
      differences are asked for, since a picture's own pose has no true number.
    - L_hidden: the same differences must not be read from the content units. An adversary learns to from
      detached units; the encoder drives its answer to zero, the answer of one that knows nothing.

    Args:
        geometry: latent units for the warp; 0 leaves out L_geometry, and the units to another guidance.
        contrast, prediction, inhibition: weights, on the scale of a picture's reconstruction error.
        distance: ``euclidean`` (minus the squared distance) or ``cosine``, of the content means.
        scale: multiplies the similarity.
        hidden: width of the adversary's hidden layer.

    Example:
        >>> from metagvae.guidance import GuidanceContext, WarpPairs, assign_units
        >>> spec = {"name": "warp_pairs", "geometry": 4}
        >>> units = assign_units([spec], latent=16)
        >>> context = GuidanceContext(channels=1, size=28, units=units)
        >>> guidance = WarpPairs(context, geometry=4)
        >>> {group: len(numbers) for group, numbers in units.items()}
        {'geometry': 4, 'content': 12}
    """

    name = "warp_pairs"
    needs_views = True

    def __init__(
        self,
        context: GuidanceContext,
        geometry: int = 8,
        contrast: float = 2000.0,
        prediction: float = 200.0,
        inhibition: float = 0.0,
        distance: str = "euclidean",
        scale: float = 1.0,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        if distance not in ("euclidean", "cosine"):
            raise InputError(f"warp_pairs' distance must be 'euclidean' or 'cosine'; received {distance!r}.")
        if scale <= 0 or min(contrast, prediction, inhibition) < 0:
            raise InputError(
                "warp_pairs needs scale > 0 and weights >= 0; received scale "
                f"{scale}, contrast {contrast}, prediction {prediction}, inhibition {inhibition}."
            )
        self.contrast, self.prediction, self.inhibition = contrast, prediction, inhibition
        self.distance, self.scale = distance, scale
        self.content = context.units["content"]
        self.of_content = Units(self.content)
        self.geometry = context.units["geometry"] if geometry else []
        if self.geometry:
            self.of_geometry = Units(self.geometry)
            self.reader = nn.Linear(len(self.geometry), len(PARAMETERS), bias=False)
        if inhibition:
            self.adversary = nn.Sequential(
                nn.Linear(len(self.content), hidden), nn.ReLU(), nn.Linear(hidden, len(PARAMETERS))
            )

    @classmethod
    def owned_units(cls, geometry: int = 8, **options: Any) -> dict[str, int]:
        if not isinstance(geometry, int) or geometry < 0:
            raise InputError(f"warp_pairs' units of geometry must be a whole number of 0 or more; received {geometry}.")
        return {"geometry": geometry} if geometry else {}

    def similarity(self, content: Tensor) -> Tensor:
        """``[B, B]`` of content means ``[B, content]``; larger for nearer ones."""
        if self.distance == "cosine":
            content = F.normalize(content, dim=-1)
            return self.scale * content @ content.T
        squares = content.square().sum(-1)
        return self.scale * (2 * content @ content.T - squares[:, None] - squares)

    def recognition(self, content: Tensor, count: int) -> Tensor:
        """Mean cross entropy of knowing a picture again: content means ``[P * count, content]``, ``count`` a picture.

        Warp r of every picture as the support, every other warp as a query, for each r.
        """
        pictures = len(content) // count
        logits = self.similarity(content).view(pictures, count, pictures, count)
        own = F.log_softmax(logits, 2).diagonal(dim1=0, dim2=2)  # [count, count, pictures]
        itself = torch.eye(count, dtype=torch.bool, device=own.device).unsqueeze(-1)
        return -own.masked_fill(itself, 0).sum() / (pictures * count * (count - 1))

    def forward(self, inputs: GuidanceInputs) -> dict[str, Tensor]:
        views = inputs.views
        if views is None or views.count < 2:
            raise InputError("warp_pairs compares warps of one picture; set views to 2 or more.")
        mean = inputs.posterior.mean

        def differences(values: Tensor) -> Tensor:
            """``[B, D]``, less the mean over each picture's warps."""
            grouped = values.view(-1, views.count, values.shape[-1])
            return (grouped - grouped.mean(1, keepdim=True)).flatten(0, 1)

        content, moved = self.of_content(mean), differences(views.parameters)
        with autocast_off(mean):
            terms = {"content": self.contrast * self.recognition(batch_rows(content), views.count)}
        if self.geometry:
            read = full_precision(self.reader(differences(self.of_geometry(mean))))
            terms["geometry"] = self.prediction * F.mse_loss(read, moved.to(read))
        if self.inhibition:
            guess = full_precision(self.adversary(differences(content.detach())))
            terms["adversary"] = F.mse_loss(guess, moved.to(guess))
            still = {key: value.detach() for key, value in self.adversary.named_parameters()}
            seen = functional_call(self.adversary, still, (differences(content),))
            terms["hidden"] = self.inhibition * full_precision(seen).square().mean()
        return terms
