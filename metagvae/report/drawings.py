"""Files of a drawing: its grid as PNG and SVG, its arrays as npz."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from episodes.whole_files import write_beside
from metagvae.report.grids import folded, write_grid
from metagvae.studies.generation import Generation
from metagvae.vae.synthesis import Drawn

ACROSS = 20  # samples in a row of the grid
SHOWN = 400  # samples in the grid; the arrays hold all


def write_drawing(drawn: Drawn, kind: str, made: Generation, folder: Path, name: str) -> list[Path]:
    """Writes what was drawn as ``KIND.png``, ``KIND.svg`` and ``KIND.npz``.

    Args:
        kind: one of `metagvae.studies.generation.KINDS`.
        made: what drew it.
        name: of the VAE, for the title.

    Returns:
        The paths.
    """
    polarity = made.vae.encoder.config.polarity
    shown = drawn
    heads: tuple[str, ...] = ()
    if kind == "samples":
        kept = Drawn(drawn.images[:, :SHOWN], drawn.latents[:, :SHOWN], drawn.rows)
        shown = folded(kept, min(ACROSS, kept.images.shape[1]))
    elif kind == "traversals":
        heads = tuple(f"{value:+.1f}" for value in made.values)
    title = f"{name}: {_TITLES[kind]}"
    paths = write_grid(shown, folder / kind, polarity, title, heads)
    pixels = (255 * drawn.images.float().cpu().nan_to_num()).round().byte().numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=pixels, latents=drawn.latents.float().cpu().numpy(), rows=np.array(drawn.rows))
    path = folder / f"{kind}.npz"
    write_beside(path, buffer.getvalue())
    return [*paths, path]


_TITLES = {
    "samples": "samples from the prior",
    "traversals": "one unit moved at a time, in standard deviations of the prior",
    "interpolations": "from one latent to another",
    "exchange": "a row keeps its character, a column gives the pose",
    "attribute": "one attribute set, all else kept",
}
