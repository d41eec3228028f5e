"""Checks of a training config before any image is opened."""

from __future__ import annotations

from episodes import InputError
from metagvae.config.sections import PretrainConfig, TrainConfig
from metagvae.learners import FeatureLearner, Learner
from metagvae.zoo.build import check_sections


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
    check_sections(config.encoder, config.vae)


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
    if config.optim.compile and not issubclass(kind, FeatureLearner):
        raise InputError(
            f"optim.compile is for learners that embed pictures with one set of weights; '{config.learner.name}' "
            "adapts them per task. Leave it off."
        )
    if chosen.every and not kind.any_way and chosen.way != shape.way:
        raise InputError(
            f"the learner '{config.learner.name}' has a head of {shape.way} ways; set validation.way to that "
            f"(received {chosen.way})."
        )
