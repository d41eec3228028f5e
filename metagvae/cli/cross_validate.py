"""`metagvae cross-validate`: the error on classes never seen, each fold of classes held out once."""

from __future__ import annotations

from dataclasses import dataclass, field

from metagvae.cli.outputs import say
from metagvae.config.sections import TrainConfig


@dataclass
class CrossValidateConfig(TrainConfig):
    """Class-level cross-validation of a training config.

    Args:
        folds: parts that the classes are dealt into; each is held out once.
        test_episodes: episodes on each fold, of the shape in validation.
        methods: encoders to measure beside, untrained on any fold; pixels, a shipped name, timm:NAME ...
        training: false only measures the methods, in seconds.
    """

    folds: int = 4
    test_episodes: int = 600
    methods: list[str] = field(default_factory=lambda: ["pixels"])
    training: bool = True


def cross_validate(config: CrossValidateConfig) -> None:
    """Estimate the error on classes never seen by holding out each fold of classes once."""
    from dataclasses import fields

    from metagvae.studies import cross_validation as crossvalidation

    plain = TrainConfig(**{f.name: getattr(config, f.name) for f in fields(TrainConfig)})
    say(crossvalidation.cross_validate(plain, config.folds, config.test_episodes, config.methods, config.training))
