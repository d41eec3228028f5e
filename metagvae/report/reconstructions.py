"""Pictures of test classes and what the decoder makes of their latents."""

from __future__ import annotations

from typing import Any

import torch

from metagvae.report.images import strip
from metagvae.report.material import Material

COUNT = 12


@torch.no_grad()
def reconstructions_content(run: Material) -> dict[str, Any]:
    """For the template: pictures and their rebuildings, and the loss that the difference makes.

    Raises:
        LeftOut: if the run has no decoder.
    """
    vae, images = run.vae, run.pictures(COUNT)
    many = run.pictures(256)
    posterior = vae.infer(many)
    nats = vae.reconstruction(vae.decoder(posterior.mean), many)
    kl = vae.kl(posterior).mean()
    rebuilt = vae.reconstruct(images)
    return {
        "rows": [
            ("images", strip(images, f"{len(images)} images of classes never seen in training.")),
            ("rebuilt", strip(rebuilt, "The same images as the decoder rebuilds them from their posterior means.")),
        ],
        "likelihood": vae.likelihood,
        "reconstruction": f"{float(nats):.1f}",
        "kl": f"{float(kl):.1f}",
        "error": f"{float((rebuilt - images).abs().mean()):.3f}",
        "count": len(many),
        "unseen": not run.refused,
    }
