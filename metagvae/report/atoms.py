"""The dictionary of a sparse encoder: its atoms, how many of them a patch needs, and what the codes keep."""

from __future__ import annotations

from typing import Any

import torch

from metagvae.encoders.sparse import SparseEncoder
from metagvae.report.images import strip
from metagvae.report.material import Material
from metagvae.report.section import LeftOut

COUNT, COLUMNS, MOST = 12, 16, 256
COUNTED = 64  # pictures that the numbers are of


@torch.no_grad()
def atoms_content(run: Material) -> dict[str, Any]:
    """For the template: the atoms in the order of their use, pictures and what their codes keep of them.

    Raises:
        LeftOut: if the run's encoder has no dictionary.
    """
    encoder = run.learner.encoder
    if not isinstance(encoder, SparseEncoder):
        raise LeftOut("This run's encoder has no dictionary.")
    pictures = run.pictures(COUNTED)
    rows = encoder.patches(pictures)
    codes = encoder.codes(pictures).flatten(0, 2)
    order = codes.abs().sum(0).argsort(descending=True)
    atoms = encoder.atom_images()[order.to(encoder.dictionary.device)][:MOST]
    inked = (codes != 0).any(1)
    shown = pictures[:: max(1, len(pictures) // COUNT)][:COUNT]
    rebuilt = encoder.rebuilt(shown).clamp(0, 1)
    left = (rows - codes @ encoder.dictionary).square().sum() / rows.square().sum().clamp(min=1e-12)
    kept = [] if encoder.config.whiten else [("from codes", strip(rebuilt, "The same pictures, from their codes."))]
    return {
        "sheets": [
            strip(part, f"Atoms {COLUMNS * line} to {COLUMNS * line + len(part) - 1} by their use.")
            for line, part in enumerate(atoms.split(COLUMNS))
        ],
        "rows": [("pictures", strip(shown, f"{len(shown)} pictures.")), *kept],
        "atoms": encoder.config.atoms,
        "shown": len(atoms),
        "side": encoder.config.side,
        "penalty": f"{encoder.config.penalty:g}",
        "active": f"{float((codes[inked] != 0).sum(1).float().mean()) if bool(inked.any()) else 0.0:.1f}",
        "idle": int((codes == 0).all(0).sum()),
        "blank": f"{100 * float((~inked).float().mean()):.0f}",
        "left": f"{100 * float(left):.1f}",
        "count": len(pictures),
        "unseen": not run.refused,
    }
