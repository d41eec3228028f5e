"""Guidances, one file each. A new one is a file with a `Guidance` subclass under ``@GUIDANCES.register``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from episodes import InputError
from metagvae.encoders.encoder import MAX_LATENT
from metagvae.guidance.auxiliary_contrast import AuxiliaryContrast
from metagvae.guidance.base import GUIDANCES, Deformation, Guidance, GuidanceContext, GuidanceInputs, Views
from metagvae.guidance.contrastive_traversal import ContrastiveTraversal
from metagvae.guidance.deformable_pca import DeformablePCA
from metagvae.guidance.excitation_inhibition import ExcitationInhibition
from metagvae.guidance.warp_pairs import WarpPairs


def assign_units(
    specs: Sequence[Mapping[str, Any]], latent: int, of_prior: Mapping[str, int] | None = None
) -> dict[str, list[int]]:
    """Latent unit numbers by group: what each guidance and the prior ask for, in order, and ``content`` for the rest.

    Args:
        of_prior: how many units of which group the prior asks for; with any, content may be left without units.

    Raises:
        InputError: if nothing is left for content, or two ask for the same group.
    """
    units: dict[str, list[int]] = {}
    start = 0
    owned = [cls.owned_units(**options) for cls, options in (GUIDANCES.chosen(s, "vae.guidance: ") for s in specs)]
    for group, size in (pair for groups in (*owned, of_prior or {}) for pair in groups.items()):
        if group in units or group in ("content", "latent", "backbone"):
            raise InputError(f"the group of latent units {group!r} is asked for twice or is reserved.")
        units[group] = list(range(start, start + size))
        start += size
    if start > latent or (start == latent and not of_prior):
        raise InputError(
            f"the guidances and the prior ask for {start} latent units of {latent}, which leaves none for content; "
            f"set a latent above {start}."
        )
    if start == latent:
        return units
    if latent > MAX_LATENT:
        raise InputError(f"encoder.latent must be at most {MAX_LATENT}; received {latent}.")
    units["content"] = list(range(start, latent))
    return units


def make_guidances(specs: Sequence[Mapping[str, Any]], context: GuidanceContext) -> list[Guidance]:
    """The guidances of a config, each a mapping with its ``name`` and options."""
    made = []
    for spec in specs:
        cls, options = GUIDANCES.chosen(spec, "vae.guidance: ")
        made.append(cls(context, **options))
    return made


__all__ = [
    "GUIDANCES",
    "AuxiliaryContrast",
    "ContrastiveTraversal",
    "DeformablePCA",
    "Deformation",
    "ExcitationInhibition",
    "Guidance",
    "GuidanceContext",
    "GuidanceInputs",
    "Views",
    "WarpPairs",
    "assign_units",
    "make_guidances",
]
