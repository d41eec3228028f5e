"""Checks of a training config before any image is opened."""

from __future__ import annotations

from episodes import InputError
from metagvae.config.sections import PretrainConfig, TrainConfig, VAESection
from metagvae.encoders.text import TextConfig
from metagvae.learners import FeatureLearner, Learner, PrototypicalNetwork
from metagvae.vae.priors import UniformCodes
from metagvae.zoo.build import check_sections

NO_KL = f"vae.prior {UniformCodes.name} has no KL that a VAE could be trained by"


def check_pretraining(config: PretrainConfig) -> None:
    """Raises `InputError` for what is wrong with the numbers and names of a pretraining."""
    if config.dictionary is not None:
        raise InputError("pretrain learns a VAE; metagvae.training.dictionaries.learn_dictionary takes a dictionary.")
    if config.encoder.source is not None:
        raise InputError("pretrain makes a new encoder; leave out encoder.source (train takes one).")
    if config.batch < 1 or config.vae.warm_up < 0:
        raise InputError(f"batch must be >= 1 and vae.warm_up >= 0; received {config.batch}, {config.vae.warm_up}.")
    if config.views < 1:
        raise InputError(f"views must be at least 1; received {config.views}.")
    _check_adversary(config)
    check_sections(config.encoder, config.vae)


def _check_adversary(config: PretrainConfig) -> None:
    """Raises `InputError` for settings that adversarial training would pass over, or a prior that needs it."""
    uniform = config.vae.prior.get("name") == UniformCodes.name
    if config.adversary is None:
        if uniform:
            raise InputError(f"{NO_KL}; give the config a section adversary, or choose another prior.")
        return
    if not uniform:
        raise InputError(
            "the section adversary trains a generator of uniform codes; set vae.prior: {name: uniform_codes} (received "
            f"{config.vae.prior.get('name')!r})."
        )
    usual = VAESection()
    for name in ("beta", "warm_up", "likelihood", "guidance", "inference", "free_bits"):
        if getattr(config.vae, name) != getattr(usual, name):
            raise InputError(f"adversarial training has no use for vae.{name}; leave it out.")
    if config.views != 1 or config.encoder.backbone == TextConfig.backbone:
        raise InputError(
            "adversarial training takes images, one view of each; received views "
            f"{config.views} and encoder.backbone {config.encoder.backbone!r}."
        )
    if config.optim.precision == "tf32":
        raise InputError(
            "adversarial training computes in float32 or bfloat16; received optim.precision 'tf32'. Leave it out."
        )


def check_training(config: TrainConfig, kind: type[Learner]) -> None:
    """Raises `InputError` for what is wrong with the numbers and names of a training.

    Args:
        kind: the class of the config's learner.
    """
    shape, chosen = config.episodes, config.validation
    if shape.tasks < 1:
        raise InputError(f"episodes.tasks must be at least 1; received {shape.tasks}.")
    if config.encoder.source is None:
        check_sections(config.encoder, config.vae)
        if config.mode == "guided" and config.vae.prior.get("name") == UniformCodes.name:
            raise InputError(f"{NO_KL}, so mode 'guided' has no use for it; choose another prior.")
    if config.teacher is not None and kind.name != PrototypicalNetwork.name:
        raise InputError(
            f"a teacher is for the learner 'prototypes', whose logits can be taught; received '{config.learner.name}'. "
            "Leave the section teacher out."
        )
    if config.optim.compile and not issubclass(kind, FeatureLearner):
        raise InputError(
            f"optim.compile is for learners that embed pictures with one set of weights; '{config.learner.name}' "
            "adapts them per task. Leave it off."
        )
    if chosen.every and not kind.answers_any_way(config.learner.options) and chosen.way != shape.way:
        raise InputError(
            f"the learner '{config.learner.name}' has a head of {shape.way} ways; set validation.way to that "
            f"(received {chosen.way})."
        )
