"""Test images as they would have been, had one factor been another."""

from __future__ import annotations

from typing import Any

import torch

from metagvae.report.images import strip
from metagvae.report.material import Material
from metagvae.report.section import LeftOut, readable

COUNT, STEPS = 12, 3


@torch.no_grad()
def counterfactuals_content(run: Material) -> dict[str, Any]:
    """For the template: images, and the same with each factor set to the ends and the middle of its range.

    Raises:
        LeftOut: if the run has no decoder, or its prior knows no causes.
    """
    vae = run.vae
    ranges = vae.prior.settings()
    if not ranges:
        raise LeftOut("The prior of this run knows no causes, so no image can be drawn under others.")
    images = run.pictures(COUNT)
    rows = [("images", strip(images, f"{len(images)} images."))]
    for name, ends in ranges.items():
        for number in torch.linspace(*ends, STEPS).tolist():
            drawn = vae.counterfactual(images, {name: images.new_full((len(images),), number)})
            label = f"do({readable(name, 20)} = {number:.3g})"
            rows.append((label, strip(drawn, f"The same images, had {readable(name, 20)} been {number:.3g}.")))
    return {"rows": rows, "unseen": not run.refused}
