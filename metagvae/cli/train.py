"""`metagvae train`: a few-shot learner on episodes, with its figures."""

from __future__ import annotations

from pathlib import Path

from metagvae.cli.outputs import say
from metagvae.config.sections import TrainConfig


def train(config: TrainConfig) -> None:
    """Train a few-shot learner on episodes."""
    from episodes import make_batch
    from metagvae.compute.processes import ranks
    from metagvae.report import figures
    from metagvae.training import episodic as training

    training.train(config)
    if not ranks().main:
        return
    dataset = config.data.make()
    bank = config.episodes.bank(dataset.load("train"))
    folder = Path(config.run.folder)
    sampler = config.episodes.sampler(bank, config.run.seed, "train", dataset.rotations == "episode")
    figures.episode(make_batch(bank, sampler.span(0, 1)), folder / "figures" / "episode.png")
    figures.curves(folder, folder / "figures" / "curves.png")
    say(f"trained; the run is in {folder}. Measure it: metagvae evaluate --run {folder}")
