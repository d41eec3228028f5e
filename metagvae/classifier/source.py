"""The encoder of a classifier: a copy that is nobody else's, from a name, a folder or an encoder."""

from __future__ import annotations

import copy
from pathlib import Path

from episodes import InputError
from metagvae import zoo
from metagvae.encoders.encoder import Encoder
from metagvae.encoders.norm import norm_policy
from metagvae.encoders.vectors import VECTORS, Vectors, VectorsConfig
from metagvae.zoo.card import EncoderCard


def opened(source: str | Path | Encoder, features: list[str] | None) -> tuple[Encoder, EncoderCard]:
    """A copy of an encoder in float32 on the CPU, and its card; an empty one of an encoder given as such.

    Args:
        source: as `FewShotClassifier` takes it, but for ``auto``.
        features: what the encoder returns; None keeps its own choice.

    Raises:
        InputError: if there is none, or images touch each other under its norm policy.
    """
    card = EncoderCard()
    encoder: Encoder
    if isinstance(source, Encoder):
        encoder = copy.deepcopy(source).cpu().float().eval()
        if features is not None:
            encoder.features = features
    elif source == VECTORS:
        encoder = Vectors(VectorsConfig())
    elif isinstance(source, str | Path):
        trained = zoo.open(source)
        encoder, card = trained.encoder(features), trained.card
    else:
        raise InputError(f"encoder must be a name, a folder or an Encoder; received a {type(source).__name__}.")
    policy = norm_policy(encoder)
    if policy not in ("running", "group", "none"):
        raise InputError(
            f"the encoder {source} has the norm policy '{policy}', under which pictures touch each other; "
            "a classifier of single pictures needs 'running' or 'group'."
        )
    return encoder, card
