"""Episodes: a person against the encoder, on test episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from episodes import EpisodeBatch, Episodes, EpisodeSampler, EpisodeShape, ImageBank, InputError, make_batch
from metagvae.demo.moving import enlarged
from metagvae.encoders.encoder import Encoder
from metagvae.learners import make_learner


@dataclass
class Score:
    """Who was right how often."""

    asked: int = 0
    person: int = 0
    model: int = 0

    def sentence(self) -> str:
        if not self.asked:
            return "Click the image in the row that shows the same character."
        return f"You {self.person} of {self.asked}, the encoder {self.model} of {self.asked}."


class Game:
    """One query of each of a stream of one-shot episodes.

    Args:
        encoder: pictures to features.
        bank: test pictures of its shape.
        way: characters to choose from.
        seed: of the episodes.

    Raises:
        InputError: if the pictures are not of the encoder's shape.
    """

    def __init__(self, encoder: Encoder, bank: ImageBank, way: int = 5, seed: int = 0) -> None:
        config = encoder.config
        if bank.image_shape != (config.channels, config.size, config.size):
            raise InputError(
                f"the encoder takes images {(config.channels, config.size, config.size)}; {bank.dataset} has "
                f"{bank.image_shape}. Choose another --data, or an encoder for such images."
            )
        self.learner = make_learner("prototypes", encoder, way).eval()
        self.bank, self.way = bank, way
        self.sampler = EpisodeSampler(bank, Episodes(EpisodeShape(way, 1, 1), seed=seed, stream="test"))

    def _episode(self, number: int) -> EpisodeBatch:
        return make_batch(self.bank, self.sampler.span(number, 1))

    def asked(self, number: int) -> int:
        """The way whose query is asked in episode ``number``."""
        return int(self._episode(number).indices[0, :, 1].sum()) % self.way

    def show(self, number: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Support pictures, one a way, and the query; uint8 ``[H, W, 3]``."""
        images = self._episode(number).images[0]
        return [enlarged(way[0]) for way in images], enlarged(images[self.asked(number), 1])

    @torch.no_grad()
    def model_answer(self, number: int) -> int:
        """The way that the encoder takes the query for."""
        batch = self._episode(number)
        logits = self.learner.predict(self.learner.adapt(batch.support), batch.query)
        return int(logits[0, self.asked(number)].argmax())

    def answer(self, number: int, way: int, score: Score) -> tuple[Score, str]:
        """The new score after a person took the query of episode ``number`` for ``way``, and what to say."""
        truth, model = self.asked(number), self.model_answer(number)
        new = Score(score.asked + 1, score.person + (way == truth), score.model + (model == truth))
        yours = "Right" if way == truth else f"No, it was number {truth + 1}"
        theirs = "the encoder was right" if model == truth else f"the encoder took number {model + 1}"
        return new, f"{yours}; {theirs}. {new.sentence()}"
