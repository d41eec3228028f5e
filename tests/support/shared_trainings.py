"""Trainings that one process does alone or several share, and how far their weights are apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from episodes import AugmentConfig, ImageBank
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import EncoderSection, LearnerSection, TrainConfig, VAESection
from metagvae.storage.tensors import read_tensors
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain
from tests.support.banks import stripes
from tests.support.trainings import pretrain_config, train_config

STEPS = 8

# Euclidean prototypes do not feel a shift of all features: the gradient of a last bias is then nothing but rounding,
# which Adam makes into steps of full length
COSINE = LearnerSection("prototypes", {"distance": "cosine"})


def bank(split: str = "train") -> ImageBank:
    return stripes(12, 8, 16, seed=0 if split == "train" else 1, noise=0.6)


def shared_config(folder: Path, learner: LearnerSection, steps: int, norm: str, **run: object) -> TrainConfig:
    return train_config(
        folder,
        learner=learner,
        augment=AugmentConfig(rotation=10, elastic=0.05, brightness=0.1),
        encoder=EncoderSection(width=8, latent=8, features=["backbone"], norm=norm),
        episodes=EpisodeSection(5, 1, 5, 5),  # of two processes one has 2 episodes, the other 3
        validation=ValidationSection(0, 5, 1, 2, 20),
        optim=OptimSection(steps=steps, clip=1.0, precision="float32"),
        run=RunSection(folder=str(folder), log_every=3, save_every=4, device="cpu", **run),  # type: ignore[arg-type]
    )


def prototypes(folder: Path, steps: int = STEPS, **run: object) -> None:
    train(shared_config(folder, COSINE, steps, "running", **run), bank())


def maml(folder: Path, steps: int = STEPS, **run: object) -> None:
    learner = LearnerSection("maml", {"inner_steps": 2})
    train(shared_config(folder, learner, steps, "support", **run), bank())


def guided(folder: Path, steps: int = STEPS, **run: object) -> None:
    config = shared_config(folder, COSINE, steps, "running", **run)
    vae = VAESection(guidance=[{"name": "deformable_pca", "transforms": ["rotation"]}], decoder_width=4)
    train(replace(config, mode="guided", vae=vae), bank())


def pretraining(folder: Path, steps: int = STEPS, **run: object) -> None:
    guidance = [
        {"name": "warp_pairs", "geometry": 2, "inhibition": 1.0},
        {"name": "excitation_inhibition", "attributes": {"third": 2}, "form": "adversarial"},
        {"name": "contrastive_traversal", "width": 4},
    ]
    config = replace(
        pretrain_config(folder),
        augment=AugmentConfig(rotation=20, scale=0.2),
        vae=VAESection(guidance=guidance, decoder_width=4, warm_up=5, free_bits=0.05),
        batch=31,
        views=2,
        optim=OptimSection(steps=steps, precision="float32"),
        run=RunSection(folder=str(folder), log_every=3, save_every=4, device="cpu", **run),  # type: ignore[arg-type]
    )
    pictures = bank()
    values = pictures.attributes["third"].values
    values[::4] = -1  # unknown, so that the processes know unequally many
    pretrain(config, pictures)


WORKS = {"prototypes": prototypes, "maml": maml, "guided": guided, "pretraining": pretraining}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(
        next(run / name for name in ("learner.safetensors", "vae.safetensors") if (run / name).exists())
    )


def largest_difference(one: Path, other: Path) -> float:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
