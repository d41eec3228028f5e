"""Distillation: a learner is taught to answer as trained ones do (Hinton, Vinyals & Dean, arXiv 1503.02531, 2015)."""

from __future__ import annotations

from hashlib import sha256

import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import EpisodeBatch, ImageBank, InputError
from episodes.paths import expanded
from metagvae import zoo
from metagvae.config.teacher import TeacherSection
from metagvae.encoders.encoder import Encoder
from metagvae.encoders.joined import SIGN
from metagvae.encoders.norm import full_precision
from metagvae.learners import PrototypicalNetwork
from metagvae.learners.base import FeatureLearner
from metagvae.learners.joined import join_learners
from metagvae.zoo.build import check_pictures


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over queries of T^2 KL(p || q), a scalar in nats.

    Here p = softmax(teacher / T) and q = softmax(student / T), eq. 1 of the paper. Its section 2 takes the cross
    entropy of p and q, which differs by the entropy of p: no student changes that. It asks for the factor T^2 too, by
    which gradients keep their size whatever T is.

    Args:
        student: logits ``[T, M, N]``.
        teacher: logits ``[T, M, N]`` of the same queries and ways.
        temperature: T, above 0.

    Example:
        >>> import torch
        >>> from metagvae.training.distillation import distillation_loss
        >>> logits = torch.tensor([[[2.0, 0.0, -1.0]]])
        >>> float(distillation_loss(logits, logits + 5.0, temperature=2.0))
        0.0
    """
    told = F.log_softmax(full_precision(teacher) / temperature, -1)
    said = F.log_softmax(full_precision(student) / temperature, -1)
    apart = F.kl_div(said, told, reduction="none", log_target=True).sum(-1)
    return apart.mean() * temperature**2


class Teacher:
    """Trained prototypical networks as one, frozen and in evaluation mode; it is no part of the run that it teaches.

    Args:
        section: which runs, and how much they count.

    Attributes:
        learner: whose answers are to be learnt; not to be trained.
        sources: the runs, opened.
        fingerprints: of the learner's file of each run, by its folder as the section names it.

    Raises:
        InputError: if a run is not there, unfinished or of another learner, or its features depend on a batch.
    """

    def __init__(self, section: TeacherSection) -> None:
        self.section = section
        self.sources = [zoo.open(name) for name in section.sources]
        learners = [run.learner() for run in self.sources]
        for run, learner in zip(self.sources, learners, strict=True):
            if type(learner) is not PrototypicalNetwork or not learner.embeds_independently:
                raise InputError(
                    f"the teacher {run} is a run of '{learner.name}', and only prototypes with the norm 'running' or "
                    "'group' can teach; choose such runs for teacher.sources."
                )
        self.encoders = [learner.encoder for learner in learners]
        joined = join_learners(learners, SIGN.join(section.sources))
        assert isinstance(joined, FeatureLearner)
        self.learner = joined.eval().requires_grad_(False)
        self.fingerprints = {
            run.name: sha256((expanded(run.name) / "learner.safetensors").read_bytes()).hexdigest()[:16]
            for run in self.sources
        }

    def check(self, bank: ImageBank) -> None:
        """Raises `InputError` if a bank's pictures do not fit a network of the teacher."""
        for run, encoder in zip(self.sources, self.encoders, strict=True):
            assert isinstance(encoder, Encoder)
            check_pictures(encoder, bank, f"of the teacher {run}")

    def terms(self, learner: FeatureLearner, batch: EpisodeBatch) -> dict[str, Tensor]:
        """The weighed loss terms of a learner on a batch: ``episodes``, its own, and ``teacher``.

        The teacher sees the same images, in each choice of support that the learner trains with.
        """
        share, temperature = self.section.share, self.section.temperature
        student = learner.logits_by_role(batch, learner.takes_every_role)
        with torch.no_grad():
            told = self.learner.logits_by_role(batch, learner.takes_every_role)
        losses = [distillation_loss(mine, theirs, temperature) for mine, theirs in zip(student, told, strict=True)]
        own = learner.loss_by_role(student, batch)
        return {"episodes": (1 - share) * own, "teacher": share * torch.stack(losses).mean()}
