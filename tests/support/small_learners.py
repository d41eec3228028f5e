"""Small learners of each kind, and episodes for them."""

from __future__ import annotations

import torch

from episodes import EpisodeBatch, Episodes, EpisodeSampler, EpisodeShape, make_batch
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.learners import Learner, make_learner
from tests.support.banks import stripes

WAY, SHOT, QUERY, TASKS = 3, 2, 3, 4


def build(
    name: str, policy: str = "group", way: int = WAY, width: int = 8, passes: int = 20, **options: object
) -> Learner:
    """``passes`` over noise give a norm of running statistics something to know."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(width=width, size=16, norm=policy, polarity="light", features=["backbone"]))
    if policy == "running":  # statistics of a trained encoder
        with torch.no_grad():
            for _ in range(passes):
                encoder(torch.rand(32, 1, 16, 16))
    return make_learner(name, encoder, way, **options)


def batch(seed: int = 0) -> EpisodeBatch:
    bank = stripes()
    return make_batch(bank, EpisodeSampler(bank, Episodes(EpisodeShape(WAY, SHOT, QUERY), seed=seed)).span(0, TASKS))
