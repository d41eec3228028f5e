"""Guidance by contrast: units that an auxiliary variable tells apart one by one (nonlinear ICA)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import InputError
from episodes.augment import PARAMETERS
from episodes.precision import autocast_off
from metagvae.compute.batch_statistics import batch_mean, batch_rows
from metagvae.encoders.norm import full_precision
from metagvae.encoders.units import Units
from metagvae.guidance.base import GUIDANCES, Guidance, GuidanceContext, GuidanceInputs
from metagvae.guidance.contrast import PairedContrast, SegmentContrast

WARP = "warp"


@GUIDANCES.register
class AuxiliaryContrast(Guidance):
    """Units whose distribution an auxiliary variable changes, each by itself.

    The contrast is that of Hyvarinen, Sasaki & Turner (AISTATS 2019, section 3).

    With ``auxiliary: warp`` the variable is how an image was warped, and nothing is labelled. One unit stands for each
    of `episodes.augment.PARAMETERS`: the difference of a unit between two warps of one image is contrasted with the
    difference of that parameter, against the differences of other images. A linear reader, as `WarpPairs` has,
    leaves any rotation of the units free; here each unit answers to one parameter alone.

    With ``class`` or the name of an attribute the variable has values, and the units tell them apart by a sum over
    units (`SegmentContrast`).

    Args:
        auxiliary: ``warp``, ``class`` or an attribute of the data set.
        units: how many; those of ``warp`` are as many as it has parameters.
        weight: of the contrast, on the scale of a picture's reconstruction error.
        statistics: of each unit, see `SegmentContrast`.
        negatives: differences of other images that each is told from, at most those of the batch; ``warp`` alone.
        hidden: width of the contrast's own networks; ``warp`` alone.

    Raises:
        InputError: for a variable that the data set does not have, or numbers that cannot be used.

    Example:
        >>> from metagvae.guidance import AuxiliaryContrast, GuidanceContext, assign_units
        >>> units = assign_units([{"name": "auxiliary_contrast"}], latent=16)
        >>> guidance = AuxiliaryContrast(GuidanceContext(channels=1, size=28, units=units))
        >>> guidance.unit_names()[0]
        'rotation'
    """

    name = "auxiliary_contrast"
    needs_views = True  # of warps, the default

    def __init__(
        self,
        context: GuidanceContext,
        auxiliary: str = WARP,
        units: int = len(PARAMETERS),
        weight: float = 100.0,
        statistics: int = 2,
        negatives: int = 4,
        hidden: int = 32,
    ) -> None:
        super().__init__()
        if weight < 0 or negatives < 1 or hidden < 1:
            raise InputError(
                "auxiliary_contrast needs weight >= 0, negatives >= 1 and hidden >= 1; received "
                f"{weight}, {negatives} and {hidden}."
            )
        self.auxiliary, self.weight, self.negatives = auxiliary, weight, negatives
        self.needs_views = auxiliary == WARP
        self.numbers = context.units[_group(auxiliary)]
        self.own, self.rest = Units(self.numbers), Units(context.units["content"])
        self.contrast: PairedContrast | SegmentContrast
        if auxiliary == WARP:
            self.contrast = PairedContrast(len(self.numbers), 2 * len(context.units["content"]), statistics, hidden)
        elif auxiliary in context.attributes:
            self.contrast = SegmentContrast(context.attributes[auxiliary], len(self.numbers), statistics)
        else:
            known = ", ".join([WARP, *sorted(context.attributes)])
            raise InputError(f"auxiliary_contrast has no variable {auxiliary!r} here; known: {known}.")

    @classmethod
    def owned_units(cls, auxiliary: str = WARP, units: int = len(PARAMETERS), **options: Any) -> dict[str, int]:
        if not isinstance(units, int) or units < 1:
            raise InputError(f"auxiliary_contrast needs at least one unit; received {units}.")
        if auxiliary == WARP and units != len(PARAMETERS):
            raise InputError(
                f"auxiliary_contrast of warps has a unit for each of {', '.join(PARAMETERS)}: leave out units, or give "
                f"{len(PARAMETERS)}. Received {units}."
            )
        return {_group(auxiliary): units}

    def unit_names(self) -> dict[int, str]:
        return dict(zip(self.numbers, PARAMETERS, strict=True)) if self.auxiliary == WARP else {}

    def forward(self, inputs: GuidanceInputs) -> dict[str, Tensor]:
        mean = full_precision(inputs.posterior.mean)
        with autocast_off(mean):
            if isinstance(self.contrast, PairedContrast):
                loss = self._of_warps(mean, inputs)
            else:
                loss = self._of_values(mean, inputs)
        return {"contrast": self.weight * loss}

    def _of_values(self, mean: Tensor, inputs: GuidanceInputs) -> Tensor:
        assert isinstance(self.contrast, SegmentContrast)
        if self.auxiliary not in inputs.attributes:
            raise InputError(f"auxiliary_contrast needs the attribute {self.auxiliary!r} of each image; received none.")
        values = inputs.attributes[self.auxiliary]
        known = values >= 0  # an attribute of part of the images
        losses = F.cross_entropy(self.contrast(self.own(mean)), values.clamp(min=0), reduction="none")
        return batch_mean(losses, known)

    def _of_warps(self, mean: Tensor, inputs: GuidanceInputs) -> Tensor:
        assert isinstance(self.contrast, PairedContrast)
        views = inputs.views
        if views is None or views.count < 2:
            raise InputError("auxiliary_contrast compares warps of one image; set views to 2 or more.")
        # every rank contrasts all rows: the others' differences are its negatives
        mean, parameters = batch_rows(mean), batch_rows(views.parameters.to(mean))
        content = self.rest(mean).detach()
        after = _next_view(content, views.count)
        moved = parameters - _next_view(parameters, views.count)
        own = self.own(mean)
        code = own - _next_view(own, views.count)
        most = len(moved) // views.count - 1
        if not most:
            raise InputError("auxiliary_contrast tells an image's warps from another's; take 2 images a step or more.")
        # no further than round the batch, where an image's own difference would stand
        steps = range(1, min(self.negatives, most) + 1)
        others = torch.stack([moved.roll(step * views.count, 0) for step in steps])
        return self.contrast.loss(code, torch.cat((content, after), -1), moved, others)


def _group(auxiliary: str) -> str:
    """The latent group of a variable's units."""
    return "geometry" if auxiliary == WARP else "components"


def _next_view(rows: Tensor, count: int) -> Tensor:
    """Rows ``[pictures * count, ...]``, in the place of each the same picture's next warp."""
    return rows.view(-1, count, *rows.shape[1:]).roll(1, 1).flatten(0, 1)
