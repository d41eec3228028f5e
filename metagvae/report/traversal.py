"""One picture's latent with one unit moved at a time, for every unit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from episodes import to_float
from metagvae.guidance.deformable_pca import TRANSFORMS, DeformablePCA
from metagvae.report.images import strip
from metagvae.report.material import Material
from metagvae.report.section import readable
from metagvae.vae.guided_vae import GuidedVAE

REACH, STEPS = 2.5, 9
MOST = 128  # strips; more would not be read, nor fit the page
PARTS = {"scale": ("width", "height"), "translation": ("right", "down")}


def unit_names(vae: GuidedVAE) -> dict[int, str]:
    """What each latent unit is called: its group, and of a geometry unit what it does to the picture."""
    names = {unit: readable(group) for group, units in vae.encoder.units.items() for unit in units}
    for guidance in vae.guidances:
        if isinstance(guidance, DeformablePCA):
            words = [word for name in guidance.transforms for word in PARTS.get(name, (name,) * TRANSFORMS[name][0])]
            names |= {unit: f"geometry: {word}" for unit, word in zip(guidance.geometry, words, strict=True)}
    return names


def mean_kl(run: Material) -> Tensor:
    """float ``[latent]``: KL of each unit from the prior in nats, over pictures of the test classes."""
    posterior = run.vae.encoder.posterior(run.pictures(512))
    return run.vae.prior.kl(posterior, posterior.mean).mean(0).cpu()


@torch.no_grad()
def traversal_content(run: Material) -> dict[str, Any]:
    """For the template: a strip per unit, guided units first, then content by its KL.

    Raises:
        LeftOut: if the run has no decoder.
    """
    vae, kl, names = run.vae, mean_kl(run), unit_names(run.vae)
    own = [unit for group, units in vae.encoder.units.items() if group != "content" for unit in units]
    content = sorted(set(range(len(kl))) - set(own), key=lambda unit: -float(kl[unit]))
    units = (own + content)[:MOST]
    row = len(run.bank) // 3
    image = run.evaluator.device.layout(to_float(run.bank.images[row : row + 1]))
    start = vae.encoder.posterior(image).mean
    values = torch.linspace(-REACH, REACH, STEPS, device=start.device)
    strips = []
    for unit in units:
        z = start.repeat(STEPS, 1)
        z[:, unit] = values
        pictures = vae.decoder(z).float().sigmoid()
        alt = f"{STEPS} pictures as unit {unit} goes from {-REACH:g} to {REACH:g}."
        strips.append(
            {"unit": unit, "name": names[unit], "kl": f"{float(kl[unit]):.2f}", "image": strip(pictures, alt)}
        )
    return {
        "strips": strips,
        "total": len(kl),
        "idle": int((kl < 0.01).sum()),
        "reach": REACH,
        "start": strip(image, "The picture whose latent is moved."),
    }
