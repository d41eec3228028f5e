"""Small trainings on gratings, and whether two ended the same."""

from __future__ import annotations

from pathlib import Path

import torch

from episodes import (
    AugmentConfig,
    ImageBank,
)
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import EncoderSection, LearnerSection, PretrainConfig, TrainConfig, VAESection
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.states import States
from metagvae.storage.tensors import read_tensors
from metagvae.training.episodic import train
from tests.support.banks import stripes

GUIDANCE = [
    {"name": "deformable_pca", "transforms": ["rotation"]},
    {"name": "excitation_inhibition", "attributes": {"third": 2}},
]


def bank(split: str = "train") -> ImageBank:
    return stripes(12, 8, 16, seed=0 if split == "train" else 1)


def pretrain_config(folder: Path, steps: int = 12, **run: object) -> PretrainConfig:
    return PretrainConfig(
        augment=AugmentConfig(rotation=10),
        encoder=EncoderSection(width=8, latent=8),
        vae=VAESection(guidance=GUIDANCE, decoder_width=4, warm_up=5),
        batch=16,
        optim=OptimSection(steps=steps),
        run=RunSection(folder=str(folder), log_every=3, save_every=5, **run),  # type: ignore[arg-type]
    )


def train_config(
    folder: Path, steps: int = 12, learner: str | LearnerSection = "prototypes", **changes: object
) -> TrainConfig:
    run = {key[4:]: changes.pop(key) for key in list(changes) if key.startswith("run_")}
    settings: dict = {
        "augment": AugmentConfig(rotation=10),
        "encoder": EncoderSection(width=8, latent=8, features=["backbone"], norm="group"),
        "learner": LearnerSection(learner) if isinstance(learner, str) else learner,
        "episodes": EpisodeSection(3, 1, 2, 2),
        "validation": ValidationSection(4, 3, 1, 2, 20),
        "optim": OptimSection(steps=steps),
        "run": RunSection(folder=str(folder), log_every=3, save_every=5, **run),  # type: ignore[arg-type]
        **changes,
    }
    return TrainConfig(**settings)


def do_train(config: TrainConfig) -> None:
    train(config, bank(), bank("validation"))


def assert_same_run(one: Path, other: Path, weights: str) -> None:
    a, b = read_tensors(one / weights), read_tensors(other / weights)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    states = [States(run / "state").load() for run in (one, other)]
    assert states[0] is not None
    assert states[1] is not None
    for key, value in states[0]["module"].items():
        assert torch.equal(value, states[1]["module"][key])
    lines = [[{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(run)] for run in (one, other)]
    assert lines[0] == lines[1]
