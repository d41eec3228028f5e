"""Images that the run's VAE draws: samples from its prior, and test characters in each other's pose."""

from __future__ import annotations

from typing import Any

import torch

from episodes import to_float
from metagvae.report.images import strip
from metagvae.report.material import Material
from metagvae.vae.synthesis import Synthesis

ACROSS, ROWS = 12, 4


@torch.no_grad()
def drawn_content(run: Material) -> dict[str, Any]:
    """For the template: strips of samples, and rows of one character's content in several poses.

    Raises:
        LeftOut: if the run has no decoder.
    """
    synthesis = Synthesis(run.vae)
    samples = synthesis.samples(ACROSS * ROWS).images[0].split(ACROSS)
    alt = f"{ACROSS} images drawn from the prior."
    kept = [group for group in run.vae.encoder.units if group == "content"]
    content: dict[str, Any] = {"samples": [strip(row, alt) for row in samples], "exchanged": [], "poses": None}
    if kept and len(run.vae.encoder.units) > 1:
        rows = torch.linspace(0, len(run.bank) - 1, ROWS + ACROSS).long().to(run.bank.device)
        images = run.evaluator.device.layout(to_float(torch.as_tensor(run.bank.images[rows])))
        # every fourth image is a character whose content is kept, the others give the poses
        chosen = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        chosen[:: ACROSS // ROWS + 1] = True
        means = run.vae.infer(images).mean
        drawn = synthesis.exchange(means[chosen], means[~chosen], kept)
        content["poses"] = strip(images[~chosen], "The test images that give the poses.")
        content["exchanged"] = [
            (strip(image[None], "The test image whose content is kept."), strip(row, "Its content in each pose."))
            for image, row in zip(images[chosen], drawn.images, strict=True)
        ]
    return content
