"""A prototypical network on drawn glyphs, trained from scratch and measured on scripts that it never saw.

Snell, Swersky & Zemel, Prototypical Networks for Few-shot Learning, NeurIPS 2017. Plain PyTorch around three parts of
the library: an encoder, a learner, and a loader whose batch of any step is a function of the seed.

    python examples/prototypes.py            # minutes
    python examples/prototypes.py --small
"""

from __future__ import annotations

import argparse

import torch

from episodes import EpisodeLoader, Episodes, EpisodeSampler, EpisodeShape
from episodes.datasets import make_dataset
from metagvae import Encoder, EncoderConfig
from metagvae.encoders.controls import Pixels
from metagvae.evaluation.evaluator import Evaluator
from metagvae.evaluation.results import format_table, legend, paired_difference
from metagvae.learners import PrototypicalNetwork


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few letters and steps, to see that it runs")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    steps, episodes = (20, 100) if chosen.small else (400, 1000)

    glyphs = make_dataset("glyphs")  # letters of fifteen scripts, drawn on this machine; nothing is downloaded
    if chosen.small:
        few = glyphs.load("validation")
        half = few.num_classes // 2
        train, test = few.subset(torch.arange(half)), few.subset(torch.arange(half, few.num_classes))
    else:
        train, test = glyphs.load("train"), glyphs.load("test")
    print(f"{train.num_classes} classes to train on, {test.num_classes} others to test on")

    torch.manual_seed(chosen.seed)
    channels, size, _ = train.image_shape
    encoder = Encoder(EncoderConfig(width=32, channels=channels, size=size, features=["backbone"]))
    learner = PrototypicalNetwork(encoder)
    optimiser = torch.optim.Adam(learner.parameters(), lr=1e-3)

    # more ways than the test has, as the paper advises
    sampler = EpisodeSampler(train, Episodes(EpisodeShape(20, 1, 4), seed=chosen.seed, stream="train"))
    learner.train()
    with EpisodeLoader(train, sampler, tasks=2) as loader:
        for step in range(steps):
            batch = loader[step].scaled()  # pictures are gathered as uint8; the network takes [0, 1]
            loss, logits = learner(batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step % 50 == 0 or step == steps - 1:
                error = (logits.argmax(-1) != batch.query_labels).float().mean()
                print(f"step {step:4}: loss {loss:.3f}, 20-way error {100 * error:.0f} %")

    # both methods see the same episodes, so that their difference has an interval of its own
    evaluator = Evaluator(test, Episodes(EpisodeShape(5, 1), stream="test"), count=episodes)
    results = []
    for name, method in (("pixels", PrototypicalNetwork(Pixels())), ("prototypes", learner.eval())):
        results += evaluator.measure(name, method, [(5, 1), (5, 5)])
    print(f"\n{legend(results)}\n{format_table(results)}")
    gap = paired_difference(results[2], results[0])
    print(f"5-way 1-shot, prototypes minus pixels: {100 * gap.difference:+.2f} ± {100 * gap.half_width:.2f} points")


if __name__ == "__main__":
    main()
