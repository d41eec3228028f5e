"""An evaluator on pictures hard enough that every method errs."""

from __future__ import annotations

import torch

from episodes import Episodes, EpisodeShape, ImageBank
from metagvae.compute.device import Device
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.evaluation.evaluator import Evaluator
from tests.support.banks import stripes

FLOAT32 = Device(torch.device("cpu"), autocast=False)


def encoder(norm: str = "group", seed: int = 0, width: int = 8) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(EncoderConfig(width=width, size=16, norm=norm, polarity="light", features=["backbone"])).eval()


def noisy() -> ImageBank:
    """Hard enough that every method errs."""
    return stripes(noise=4.0)


def evaluator(**options: object) -> Evaluator:
    unit = options.pop("unit", None)
    drawn = Episodes(EpisodeShape(4, 2, 3), **{"stream": "test", **options})  # type: ignore[arg-type]
    return Evaluator(noisy(), drawn, 50, FLOAT32, unit)  # type: ignore[arg-type]
