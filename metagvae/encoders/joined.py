"""Several encoders as one: their features of a picture side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError
from episodes.paths import all_different, expanded
from metagvae.encoders.norm import full_precision

SIGN = "+"


def parts(name: str) -> list[str]:
    """The runs or encoders that a name such as ``runs/a-seed0+runs/a-seed1`` joins; a path that exists is one."""
    if SIGN not in name or expanded(name).exists():
        return [name]
    found = name.split(SIGN)
    if "" in found or not all_different(found):
        raise InputError(f"{name!r} must join different names by {SIGN!r}, such as runs/a-seed0+runs/a-seed1.")
    return found


def joined_name(name: str) -> str:
    """The name of a joined method in results: the last folder of each part, of ``.`` the one that it is."""
    return SIGN.join(_last_folder(part) for part in parts(name))


def _last_folder(path: str) -> str:
    last = Path(path).name
    return last if last not in ("", "..") else expanded(path).resolve().name


class JoinedEncoder(nn.Module):
    """Encoders of the same pictures whose features stand side by side.

    Squared distances of such features are the sums of each encoder's own, unless a head shortens them
    (``normalise``). So nearest prototypes let the encoders vote with their distances: an ensemble of few-shot
    learners, as in Dvornik, Schmid & Mairal (Diversity with Cooperation, ICCV 2019), averaged before the softmax and
    without their training.

    Args:
        encoders: at least one; pictures ``[B, C, H, W]`` to features ``[B, D_i]``.
        votes: how much each encoder's squared distances count; its features are brought to length 1 first, so that a
            larger scale has no larger vote. None leaves features as they are.
    """

    def __init__(self, encoders: Sequence[nn.Module], votes: Sequence[float] | None = None) -> None:
        super().__init__()
        self.encoders, self.votes = nn.ModuleList(encoders), votes

    @property
    def features(self) -> list[str]:
        return getattr(self.encoders[0], "features", ["all"])

    def forward(self, images: Tensor) -> Tensor:
        """Features ``[B, sum of D_i]``."""
        parts = [encoder(images) for encoder in self.encoders]
        if self.votes is not None:
            parts = [
                F.normalize(full_precision(part), dim=-1) * vote**0.5
                for part, vote in zip(parts, self.votes, strict=True)
            ]
        return torch.cat(parts, -1)
