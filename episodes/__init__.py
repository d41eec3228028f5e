"""Images in, batches of few-shot episodes out. Knows nothing of models."""

from episodes._torch_import import collector_paused  # isort: skip  # first: it imports torch

from episodes.augment import AugmentConfig, Warped, augment, warp
from episodes.bank import Attribute, ImageBank
from episodes.batch import EpisodeBatch, make_batch, to_float
from episodes.capture import CaptureConfig
from episodes.errors import InputError
from episodes.loader import EpisodeLoader
from episodes.samplers.base import EpisodeIndices, EpisodeSampler
from episodes.samplers.pictures import ViewSampler, picture_classes

__all__ = [
    "Attribute",
    "AugmentConfig",
    "CaptureConfig",
    "EpisodeBatch",
    "EpisodeIndices",
    "EpisodeLoader",
    "EpisodeSampler",
    "ImageBank",
    "InputError",
    "ViewSampler",
    "Warped",
    "augment",
    "collector_paused",
    "make_batch",
    "picture_classes",
    "to_float",
    "warp",
]
