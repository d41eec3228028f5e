"""The small runs that are disturbed, and processes to run them in."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import DataConfig, EncoderSection, LearnerSection, PretrainConfig, TrainConfig, VAESection
from metagvae.runs.metrics_log import read_metrics
from metagvae.storage.atomic_files import is_remnant
from metagvae.storage.tensors import read_tensors
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain

GUIDANCE = [{"name": "deformable_pca"}]


class Job:
    """One kind of run: a learner's training; ``guided``, prototypes with the VAE's losses kept on; or ``pretrain``.

    Args:
        width: feature maps of the network; more make larger states.
        save_every: steps between states.
        data: the pictures; Omniglot's, or glyphs where it is not at hand.
    """

    def __init__(
        self,
        kind: str,
        steps: int,
        width: int = 8,
        save_every: int = 10,
        log_every: int = 5,
        data: DataConfig | None = None,
    ) -> None:
        self.kind, self.steps, self.width = kind, steps, width
        self.save_every, self.log_every = save_every, log_every
        self.data = data or DataConfig("omniglot" if os.environ.get("METAGVAE_DATA") else "glyphs")
        dataset = self.data.make()
        # of few classes: a launch's time goes into steps and writes, not into validation
        few = torch.arange(12)
        self.bank, self.validation = dataset.load("train").subset(few), dataset.load("validation").subset(few)
        self.weights = "vae.safetensors" if kind == "pretrain" else "learner.safetensors"

    def __call__(self, folder: Path) -> None:
        """A launch in this process."""
        run = RunSection(str(folder), "auto", device="cpu", log_every=self.log_every, save_every=self.save_every)
        optim, vae = OptimSection(steps=self.steps), VAESection(guidance=GUIDANCE, decoder_width=4)
        if self.kind == "pretrain":
            encoder = EncoderSection(width=self.width, latent=8)
            pretrain(PretrainConfig(self.data, encoder=encoder, vae=vae, batch=16, optim=optim, run=run), self.bank)
            return
        guided = self.kind == "guided"
        config = TrainConfig(
            self.data,
            encoder=EncoderSection(width=self.width, latent=8, norm="group", features=["backbone"]),
            mode="guided" if guided else "finetune",
            vae=vae,
            learner=LearnerSection("prototypes" if guided else self.kind),
            episodes=EpisodeSection(5, 1, 2),
            validation=ValidationSection(max(50, self.steps // 10), 5, 1, 5, 20),
            optim=optim,
            run=run,
        )
        train(config, self.bank, self.validation)


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def differs(one: Path, other: Path, weights: str) -> bool:
    """Whether two finished runs differ in a bit of their weights or metrics, or one left something beside."""
    a, b = read_tensors(one / weights), read_tensors(other / weights)
    lines = [[{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(run)] for run in (one, other)]
    same = a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) and lines[0] == lines[1]
    return not same or any(is_remnant(path) for path in other.rglob("*"))
