"""Images in, batches of few-shot episodes out. Knows nothing of models."""

from episodes._torch_import import collector_paused  # isort: skip  # first: it imports torch

from episodes.augment import AugmentConfig, ClassWarp, Warped, augment, warp
from episodes.bank import Attribute, Factors, ImageBank
from episodes.batch import EpisodeBatch, make_batch, to_float
from episodes.capture import CaptureConfig
from episodes.errors import InputError
from episodes.loader import EpisodeLoader
from episodes.samplers.base import EpisodeIndices, EpisodeSampler
from episodes.samplers.by_attribute import WithinSampler
from episodes.samplers.pictures import ViewSampler, picture_classes
from episodes.samplers.prescribed import FixedEpisodes
from episodes.shape import Episodes, EpisodeShape, Within

__all__ = [
    "Attribute",
    "AugmentConfig",
    "CaptureConfig",
    "ClassWarp",
    "EpisodeBatch",
    "EpisodeIndices",
    "EpisodeLoader",
    "EpisodeSampler",
    "EpisodeShape",
    "Episodes",
    "Factors",
    "FixedEpisodes",
    "ImageBank",
    "InputError",
    "ViewSampler",
    "Warped",
    "Within",
    "WithinSampler",
    "augment",
    "collector_paused",
    "make_batch",
    "picture_classes",
    "to_float",
    "warp",
]
