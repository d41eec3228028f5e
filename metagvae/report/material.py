"""Material of a report: a run's files, its networks, and the pictures that it is measured on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from episodes import EpisodeBatch, EpisodeIndices, ImageBank, InputError, make_batch, to_float
from episodes.paths import expanded
from episodes.untrusted.plain_files import read_json
from metagvae import zoo
from metagvae.encoders.encoder import Encoder
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import Learner
from metagvae.report.section import LeftOut
from metagvae.report.shape import Shape
from metagvae.runs.metrics_log import read_metrics
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.leakage import refuse_trained_classes
from metagvae.zoo.trained import Trained


@dataclass(frozen=True)
class Answers:
    """Episodes, their pictures drawn on demand, and how each query was answered.

    Args:
        drawn: all episodes.
        ways: int64 ``[episodes, N, Q]``, the way that each query was put into.
    """

    evaluator: Evaluator
    drawn: EpisodeIndices
    ways: Tensor

    @property
    def wrong(self) -> Tensor:
        """bool ``[episodes, N, Q]``."""
        return self.ways != torch.arange(self.ways.shape[1])[:, None]

    def pictures(self, count: int) -> EpisodeBatch:
        """The first ``count`` episodes."""
        return make_batch(self.evaluator.bank, self.drawn.tasks_from(0, count))


class Material:
    """One finished run.

    Args:
        folder: of the run.
        learner: its best one, or nearest prototypes on a pretrained encoder.
        evaluator: holds the pictures, and says which episodes.
        shape: of the episodes.

    Raises:
        InputError: if the folder holds no finished run.
    """

    def __init__(self, folder: str | Path | Trained, learner: Learner, evaluator: Evaluator, shape: Shape) -> None:
        self.folder = expanded(str(folder))
        self.name = self.folder.resolve().name
        self.trained = zoo.open(folder)
        self.config: dict[str, Any] = self.trained.config
        self.evaluator, self.shape = evaluator, shape
        self.card: EncoderCard = self.trained.card
        self.learner = learner
        evaluator.device.place(learner.eval())
        self.metrics = list(read_metrics(self.folder))

    @property
    def bank(self) -> ImageBank:
        return self.evaluator.bank

    @property
    def encoder(self) -> Encoder:
        assert isinstance(self.learner.encoder, Encoder)
        return self.learner.encoder

    @cached_property
    def made_by(self) -> dict[str, Any]:
        """The command, commit and versions that made the run, as far as it noted them."""
        try:
            noted = read_json(self.folder / "provenance.json", "what a run notes of its making")
        except InputError:
            noted = self.card.details.get("provenance")
        return noted if isinstance(noted, dict) else {}

    @cached_property
    def refused(self) -> str:
        """Why episodes of these classes would mean nothing for this run; empty if they do."""
        try:
            refuse_trained_classes(self.trained, self.bank)
        except InputError as error:
            return str(error)
        return ""

    @cached_property
    def _vae(self) -> GuidedVAE | None:
        if self.config["kind"] == "train" and not (self.folder / "vae.safetensors").is_file():
            return None
        if self.config.get("dictionary"):
            return None
        vae = self.trained.vae()
        self.evaluator.device.place(vae)
        return vae

    @property
    def vae(self) -> GuidedVAE:
        """The autoencoder, in evaluation mode on the evaluator's device.

        Raises:
            LeftOut: if the run has none.
        """
        if self.config.get("dictionary"):
            raise LeftOut("This run learnt a dictionary for sparse codes; there is no latent and no decoder.")
        if self._vae is None:
            source = (self.config.get("encoder") or {}).get("source")
            where = f" The run its encoder came from has one: metagvae report {source}." if source else ""
            raise LeftOut(
                f"This run trained a classifier in mode {json.dumps(self.config.get('mode'))}, which keeps no decoder."
                f"{where}"
            )
        return self._vae

    @cached_property
    def answers(self) -> Answers:
        """How the queries of every episode of the first shape were answered.

        Raises:
            LeftOut: if the run was trained on these classes.
        """
        if self.refused:
            raise LeftOut(self.refused)
        way, shot = self.shape.way, self.shape.shots[0]
        drawn, found = self.evaluator.answers(self.learner, way, shot)
        return Answers(self.evaluator, drawn, found.cpu().unflatten(1, (way, -1)))

    def pictures(self, count: int) -> Tensor:
        """float32 ``[count, C, H, W]`` in [0, 1], evenly spread over the classes."""
        rows = torch.linspace(0, len(self.bank) - 1, min(count, len(self.bank))).long()
        return self.evaluator.device.layout(to_float(self.bank.images[rows.to(self.bank.device)]))
