"""Configuration: one dataclass per section of a YAML file."""

from metagvae.config.adversary import AdversarySection
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
from metagvae.config.teacher import TeacherSection

__all__ = [
    "AdversarySection",
    "DataConfig",
    "EncoderSection",
    "EpisodeSection",
    "LearnerSection",
    "OptimSection",
    "PretrainConfig",
    "RunSection",
    "TeacherSection",
    "TrainConfig",
    "VAESection",
    "ValidationSection",
    "to_dict",
]
