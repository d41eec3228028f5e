"""One picture's latent with one unit moved at a time, for every unit."""

from __future__ import annotations

from typing import Any

import torch

from episodes import to_float
from metagvae.report.images import strip
from metagvae.report.material import Material
from metagvae.report.section import readable
from metagvae.vae.guided_vae import GuidedVAE

STEPS = 9
MOST = 128  # strips; more would not be read, nor fit the page


def unit_names(vae: GuidedVAE) -> dict[int, str]:
    """The name of each latent unit: its group, or what a guidance says that it does to the picture."""
    names = {unit: readable(group) for group, units in vae.encoder.units.items() for unit in units}
    for guidance in vae.guidances:
        names |= {unit: readable(name) for unit, name in guidance.unit_names().items()}
    return names


@torch.no_grad()
def traversal_content(run: Material) -> dict[str, Any]:
    """For the template: a strip per unit, guided units first, then content by its KL, if the prior tells it.

    Raises:
        LeftOut: if the run has no decoder.
    """
    vae, names = run.vae, unit_names(run.vae)
    kl = vae.kl_of_units(vae.infer(run.pictures(512)))
    kl = None if kl is None else kl.cpu()
    own = [unit for group, units in vae.encoder.units.items() if group != "content" for unit in units]
    content = [unit for unit in range(len(names)) if unit not in set(own)]
    if kl is not None:
        content.sort(key=lambda unit: -float(kl[unit]))
    units = (own + content)[:MOST]
    row = len(run.bank) // 3
    image = run.evaluator.device.layout(to_float(run.bank.images[row : row + 1]))
    start = vae.infer(image).mean
    reach = vae.prior.reach
    values = torch.linspace(-reach, reach, STEPS, device=start.device)
    strips = []
    for unit in units:
        z = start.repeat(STEPS, 1)
        z[:, unit] = values
        pictures = vae.decode(z)
        alt = f"{STEPS} images as unit {unit} goes from {-reach:g} to {reach:g}."
        carried = None if kl is None else f"{float(kl[unit]):.2f}"
        strips.append({"unit": unit, "name": names[unit], "kl": carried, "image": strip(pictures, alt)})
    return {
        "strips": strips,
        "total": len(names),
        "idle": None if kl is None else int((kl < 0.01).sum()),
        "reach": reach,
        "start": strip(image, "The image whose latent is moved."),
    }
