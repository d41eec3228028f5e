"""A learner of one's own: a matching network, trained and measured beside prototypes on the same episodes.

Vinyals et al., Matching Networks for One Shot Learning, NeurIPS 2016, eq. 1 and 2, without full-context embeddings. The
class registers itself, so that any config may name it; a command line takes it too: `metagvae train --import
own_learner --learner.name matching_network ...` from this folder.

    python examples/own_learner.py            # minutes
    python examples/own_learner.py --small
"""

from __future__ import annotations

import argparse
import tempfile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import Episodes, EpisodeShape, InputError
from episodes.datasets import make_dataset
from metagvae.config import (
    EncoderSection,
    EpisodeSection,
    LearnerSection,
    OptimSection,
    RunSection,
    TrainConfig,
    ValidationSection,
)
from metagvae.evaluation.evaluator import Evaluator
from metagvae.evaluation.results import format_table, legend
from metagvae.learners import LEARNERS, FeatureLearner
from metagvae.training.episodic import train


@LEARNERS.register
class MatchingNetwork(FeatureLearner):
    """A query's classes are the support labels, weighted by a softmax over cosines to the support features.

    Args:
        encoder: images to features.
        scale: multiplies the cosines.
    """

    name = "matching_network"

    def __init__(self, encoder: nn.Module, scale: float = 10.0) -> None:
        super().__init__(encoder)
        if scale <= 0:
            raise InputError(f"matching_network's scale must be positive; received {scale}.")
        self.scale = scale

    def fit_head(self, support: Tensor) -> Tensor:
        """Support features ``[T, N, K, D]`` of length one."""
        return F.normalize(support, dim=-1)

    def ask_head(self, state: Tensor, query: Tensor) -> Tensor:
        """Logits ``[T, N * Q, N]``: the log of the attention that falls on each way."""
        way, shot = state.shape[1:3]
        cosines = F.normalize(query.flatten(1, 2), dim=-1) @ state.flatten(1, 2).transpose(1, 2)
        return F.log_softmax(self.scale * cosines, -1).unflatten(-1, (way, shot)).logsumexp(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few letters and steps, to see that it runs")
    small = parser.parse_args().small
    bank = make_dataset("glyphs").load("validation")
    half = bank.num_classes // 2  # the split's letters: half to train on, half to measure on
    known, unknown = bank.subset(torch.arange(half)), bank.subset(torch.arange(half, bank.num_classes))
    results = []
    for name in ("prototypes", "matching_network"):
        with tempfile.TemporaryDirectory() as folder:
            config = TrainConfig(
                encoder=EncoderSection(width=16, features=["backbone"]),
                learner=LearnerSection(name),
                episodes=EpisodeSection(way=5, shot=1, query=5),
                validation=ValidationSection(every=0),
                optim=OptimSection(steps=20 if small else 1000),
                run=RunSection(folder=f"{folder}/{name}"),
            )
            learner = train(config, known)
        evaluator = Evaluator(unknown, Episodes(EpisodeShape(5, 1), stream="test"), count=100 if small else 1000)
        results += evaluator.measure(name, learner, [(5, 1), (5, 5)])
    print(f"{legend(results)}\n{format_table(results)}")


if __name__ == "__main__":
    main()
