"""The error on validation classes, by which the best weights are chosen."""

from __future__ import annotations

from episodes import Episodes, ImageBank
from metagvae.compute.device import Device
from metagvae.config.episodes import ValidationSection
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import Learner


class Validation:
    """Episodes of the validation classes, the same ones each time.

    Args:
        seed: of the episodes.
        rotations: whether each class of an episode gets a quarter turn.
        bank: the validation split.

    Raises:
        InputError: if the split cannot give such episodes.
    """

    def __init__(self, section: ValidationSection, seed: int, rotations: bool, bank: ImageBank, device: Device) -> None:
        self.every, self.shape = section.every, (section.way, section.shot)
        drawn = Episodes(section.shape, seed, "validation", rotations, section.within)
        self.evaluator = Evaluator(bank, drawn, section.episodes, device)
        self.evaluator.check(*self.shape)

    def error(self, learner: Learner) -> float:
        """The mean error over the episodes, in [0, 1]."""
        (errors,) = self.evaluator.errors(learner, [self.shape])
        return float(errors.mean())
