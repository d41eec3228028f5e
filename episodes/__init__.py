"""Images in, batches of few-shot episodes out. Knows nothing of models."""

from episodes.augment import AugmentConfig, augment
from episodes.bank import Attribute, ImageBank
from episodes.batch import EpisodeBatch, make_batch, to_float
from episodes.errors import InputError
from episodes.sampler import EpisodeIndices, EpisodeSampler

__all__ = [
    "Attribute",
    "AugmentConfig",
    "EpisodeBatch",
    "EpisodeIndices",
    "EpisodeSampler",
    "ImageBank",
    "InputError",
    "augment",
    "make_batch",
    "to_float",
]
