"""The step that failed: training, pretraining and evaluation under each name that a user can give the device."""

from __future__ import annotations

from typing import Any

from episodes import Episodes, EpisodeShape
from gpu.setup import Report, Setup
from metagvae.compute.device import Device
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import DataConfig, EncoderSection, PretrainConfig, TrainConfig, VAESection
from metagvae.evaluation.evaluator import Evaluator
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain


def run(setup: Setup, report: Report) -> None:
    bank = setup.bank()
    optim = OptimSection(steps=2)
    encoder = EncoderSection(width=16, latent=16, features=["backbone"])

    def section(what: str, name: str) -> RunSection:
        return RunSection(folder=str(setup.folder / f"{what}-{name.replace(':', '-')}"), device=name, log_every=1)

    def training(name: str) -> dict[str, Any]:
        shape, check = EpisodeSection(way=5, query=5, tasks=2), ValidationSection(every=2, query=5, episodes=4)
        config = TrainConfig(DataConfig("omniglot"), encoder=encoder, episodes=shape, validation=check, optim=optim)
        config.run = section("train", name)
        learner = train(config, bank, bank)
        device = Device.choose(name)
        (errors,) = Evaluator(bank, Episodes(EpisodeShape(5, 1, 5), stream="test"), 8, device).errors(learner, [(5, 1)])
        return {"device": str(device.device), "precision": device.precision_name, "errors": len(errors)}

    def pretraining(name: str) -> dict[str, Any]:
        guidance = [{"name": "deformable_pca"}]
        config = PretrainConfig(DataConfig("omniglot"), encoder=encoder, vae=VAESection(guidance=guidance), batch=16)
        config.optim, config.run = optim, section("pretrain", name)
        pretrain(config, bank)
        return {}

    for name in ("auto", "cuda", "cuda:0") if setup.device == "cuda" else ("auto", "cpu"):
        report.attempt(f"train and evaluate on {name}", lambda name=name: training(name))  # type: ignore[misc]
        report.attempt(f"pretrain on {name}", lambda name=name: pretraining(name))  # type: ignore[misc]
