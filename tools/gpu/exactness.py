"""Runs that must end in the same bits: one never stopped, one resumed, one repeated; and one over two GPUs."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from episodes import AugmentConfig, ImageBank
from gpu import missing
from gpu.cases import WARPS
from gpu.setup import Report, Setup
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import (
    DataConfig,
    EncoderSection,
    LearnerSection,
    PretrainConfig,
    TrainConfig,
    VAESection,
    to_dict,
)
from metagvae.runs.signals import Interrupted
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain
from metagvae.zoo.load import read_tensors

LEARNERS = (
    ("prototypes", "running", {"roles": "every"}),
    ("ridge", "running", {}),
    ("maml", "support", {}),
    ("anil", "running", {}),
    ("statistician", "running", {"excitation": 10.0, "inhibition": 1.0, "mixup": 0.4}),
)
GUIDANCES: tuple[tuple[str, list[dict[str, Any]], int], ...] = (
    ("warp_pairs", [{"name": "warp_pairs", "inhibition": 100.0}], 4),
    ("excitation_inhibition", [{"name": "excitation_inhibition", "attributes": {"class": 8}}], 1),
    ("deformable_pca", [{"name": "deformable_pca"}], 1),
)


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Any]:
    """Whether all bits are the same, the difference of all weights together, and the largest relative to its tensor.

    Adam moves a weight whose gradient is rounding alone by a whole step one way or the other: a bias near 0 shows it.
    """
    same = set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)
    pairs = [(one[name].double(), other[name].double()) for name in one if one[name].numel()]
    gaps = [float((a - b).abs().max() / b.abs().max().clamp(min=1e-9)) for a, b in pairs]
    apart = math.sqrt(sum(float((a - b).square().sum()) for a, b in pairs))
    length = math.sqrt(sum(float(b.square().sum()) for _, b in pairs))
    return {"identical": same, "difference": apart / length, "largest difference": max(gaps)}


class Runs:
    """Short runs of one config, each in a folder of its own."""

    def __init__(self, setup: Setup, bank: ImageBank) -> None:
        self.setup, self.bank, self.numbers = setup, bank, itertools.count()
        self.steps = setup.size(40, 8)

    def training(self, learner: str, norm: str, options: dict[str, Any]) -> Callable[[RunSection], str]:
        """Trains in a run section's folder and returns the file of the weights."""
        config = TrainConfig(
            DataConfig("omniglot"),
            AugmentConfig(**WARPS),
            EncoderSection(norm=norm, width=self.setup.size(64, 16), features=["backbone"]),
            learner=LearnerSection(learner, options),
            episodes=EpisodeSection(way=5, query=5, tasks=4),
            validation=ValidationSection(every=self.steps // 4, query=5, episodes=8),
            optim=OptimSection(steps=self.steps, clip=10.0),
        )

        def work(section: RunSection) -> str:
            config.run = section
            train(config, self.bank, self.bank)
            return "learner.safetensors"

        return work

    def pretraining(self, guidance: list[dict[str, Any]], views: int) -> Callable[[RunSection], str]:
        """The same of a Guided-VAE."""
        config = PretrainConfig(
            DataConfig("omniglot"),
            AugmentConfig(**WARPS),
            EncoderSection(width=self.setup.size(64, 16), latent=32),
            VAESection(guidance=guidance),
            batch=64,
            views=views,
            optim=OptimSection(steps=self.steps),
        )

        def work(section: RunSection) -> str:
            config.run = section
            pretrain(config, self.bank)
            return "vae.safetensors"

        return work

    def weights(self, work: Callable[[RunSection], str], deterministic: bool, stop: bool = False) -> dict[str, Tensor]:
        """Those that a run ends with; with ``stop`` one that was stopped half way and resumed."""
        folder = self.setup.folder / f"run-{next(self.numbers)}"
        section = RunSection(str(folder), device=self.setup.device, log_every=5, deterministic=deterministic)
        if stop:
            section.stop_after = self.steps // 2
            with contextlib.suppress(Interrupted):
                work(section)
            section.stop_after, section.resume = None, True
        return read_tensors(folder / work(section))

    def compared(self, work: Callable[[RunSection], str], deterministic: bool) -> dict[str, Any]:
        whole = self.weights(work, deterministic)
        return {
            "resumed": difference(self.weights(work, deterministic, stop=True), whole),
            "repeated": difference(self.weights(work, deterministic), whole),
        }


def several(setup: Setup, bank: ImageBank, ranks: int) -> dict[str, Any]:
    """As many processes over NCCL as there are GPUs (gloo on a CPU) against one, by the ordinary command."""
    if missing(("jsonargparse",)):
        return {"note": "not measured: the command line needs jsonargparse"}
    if setup.root("omniglot") is None:
        return {"note": "not measured: the command line needs a data folder"}
    config = TrainConfig(
        DataConfig("omniglot", root=setup.root("omniglot")),
        encoder=EncoderSection(width=16, features=["backbone"]),
        episodes=EpisodeSection(way=5, query=5, tasks=4),
        validation=ValidationSection(every=0),
        optim=OptimSection(steps=10, precision="float32"),
    )
    found = []
    for name, count in (("alone", 1), ("together", ranks)):
        config.run = RunSection(str(setup.folder / name), device=setup.device)
        path = setup.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(to_dict(config)), encoding="utf-8")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command = [sys.executable, *launcher, "-m", "metagvae", "train", "--config", str(path)]
        subprocess.run(command, check=True, env=os.environ)
        found.append(read_tensors(Path(config.run.folder) / "learner.safetensors"))
    return {"ranks": ranks, **difference(found[1], found[0])}


def run(setup: Setup, report: Report) -> None:
    bank = setup.bank()
    runs = Runs(setup, bank)
    works = [(f"{name} {norm}", runs.training(name, norm, options)) for name, norm, options in LEARNERS]
    works += [(f"pretraining, {name}", runs.pretraining(guidance, views)) for name, guidance, views in GUIDANCES]
    if setup.few:
        works = [works[0], works[2], works[-1]]
    for deterministic in (True,) if setup.few else (True, False):
        for name, work in works:
            how = "deterministic" if deterministic else "as usual"
            report.attempt(
                f"{name}, {how}",
                lambda work=work, on=deterministic: runs.compared(work, on),  # type: ignore[misc]
            )
    gpus = torch.cuda.device_count() if setup.device == "cuda" else 2
    if gpus < 2:
        report.row("two ranks over NCCL", note="not measured: one GPU is here")
    report.attempt("ranks against one process", lambda: several(setup, bank, max(1, min(gpus, 2))))
