"""The modules that episodes train: a learner, and in mode guided the VAE around its encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from episodes import ImageBank, InputError
from metagvae.config.sections import TrainConfig
from metagvae.learners import Learner, make_learner
from metagvae.training.checks import NO_KL
from metagvae.training.distillation import Teacher
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.priors import UniformCodes
from metagvae.zoo.build import (
    attribute_sizes,
    check_guided_attributes,
    check_pictures,
    check_source_settings,
    factor_ranges,
    new_encoder,
    new_vae,
)
from metagvae.zoo.trained import Trained


@dataclass
class Parts:
    """The networks that a training step works with.

    Args:
        learner: with the encoder.
        vae: around the same encoder, whose losses stay on in mode guided.
        teacher: of the learner, not trained itself.
    """

    learner: Learner
    vae: GuidedVAE | None = None
    teacher: Teacher | None = None


def build_parts(
    config: TrainConfig, bank: ImageBank, source: Trained | None = None, teacher: Teacher | None = None
) -> Parts:
    """The learner, and the VAE whose losses stay on in mode guided.

    Args:
        source: what ``encoder.source`` names, opened.
        teacher: what the section ``teacher`` names, opened.
    """
    section, vae = config.encoder, None
    sizes = attribute_sizes(bank) if config.episodes.labelled else {}
    if config.mode == "guided" and source is not None:
        # of a pretraining run: the decoder and the guidance come along
        vae = source.vae()
        if isinstance(vae.prior, UniformCodes):
            raise InputError(f"{NO_KL}, and {source.name} has it; take mode 'finetune', or a VAE's run as the source.")
        encoder = vae.encoder
        check_guided_attributes(vae, source, source.attributes, sizes)
    elif source is not None:
        encoder = source.encoder()
    else:
        encoder = new_encoder(section, config.vae, bank, config.run.seed)
        if config.mode == "guided":
            vae = new_vae(encoder, config.vae, sizes, factors=factor_ranges(bank) if sizes else {})
    if vae is not None:
        vae.prior.check_images(len(bank))
    if vae is not None and config.episodes.labelled:
        vae.check_views(config.views)
    compares = [guidance.name for guidance in vae.guidances if guidance.needs_views] if vae is not None else []
    if compares and config.episodes.classes == "neighbours":
        raise InputError(
            f"the guidance '{compares[0]}' compares warps of one picture, and the images of a class are different ones "
            "with episodes.classes 'neighbours'. Take mode 'finetune', or episodes.classes 'pictures'."
        )
    check_source_settings(section, encoder)
    check_pictures(encoder, bank, source or "of this config")
    if teacher is not None:
        teacher.check(bank)
    if section.features:
        encoder.features = section.features
    torch.manual_seed(config.run.seed)
    learner = make_learner(config.learner.name, encoder, config.episodes.way, **config.learner.options)
    if config.mode == "frozen":
        encoder.requires_grad_(False)
        encoder.eval()
        if not any(p.requires_grad for p in learner.parameters()):
            raise InputError(
                f"mode 'frozen' leaves the learner '{learner.name}' nothing to train. Measure the encoder as it is "
                "(metagvae evaluate --encoder), or choose another mode, or a learner with weights of its own."
            )
    return Parts(learner, vae, teacher)


class Trainee(nn.Module):
    """Learner and VAE as one module, the encoder they share stored once.

    Args:
        frozen: the encoder stays in evaluation mode: its batch statistics stay as they are.
    """

    def __init__(self, parts: Parts, frozen: bool = False) -> None:
        super().__init__()
        self.frozen = frozen
        self.learner = parts.learner
        if parts.vae is not None:
            self.decoder, self.guidances = parts.vae.decoder, parts.vae.guidances
            self.prior, self.inference = parts.vae.prior, parts.vae.inference

    def train(self, mode: bool = True) -> Trainee:
        super().train(mode)
        if self.frozen:
            self.learner.encoder.eval()
        return self
