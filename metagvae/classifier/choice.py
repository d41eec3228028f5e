"""The encoder that suits some images, chosen by these alone: each is left out, and the others say what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import AugmentConfig, InputError, augment
from metagvae.classifier.calibration import Calibration, adapt, gaussian_logits, left_out, squared_distances
from metagvae.classifier.labels import as_labels, positions
from metagvae.zoo.load import installed_encoders

if TYPE_CHECKING:
    from metagvae.classifier.estimator import FewShotClassifier

Given = Callable[[int, int], tuple[Any, Any]]
AUTO = "auto"
# for anybody's images; those of Omniglot's benchmark were trained on warps, and changed copies are just such
GENERAL = ("handwriting", "photos")
VIEW = AugmentConfig(rotation=15, scale=0.2, shear=0.15, translation=0.1, brightness=0.3)
VIEWS = 2  # of each image, where a class has one image alone
MOST = 400  # images looked at


@dataclass(frozen=True)
class Choice:
    """The encoder chosen for some images, and what it was chosen by.

    Attributes:
        encoder: its name.
        errors: the share of images put into a wrong class, by encoder.
        losses: the mean of minus the logarithm of the own class's probability, by which it was chosen: among few images
            it tells more than the share of errors.
        views: whether changed copies of the images were asked for, for want of a second image of a class.
    """

    encoder: str
    errors: dict[str, float]
    losses: dict[str, float]
    views: bool

    def sentence(self) -> str:
        """The choice and its figures."""
        order = sorted(self.losses, key=self.losses.__getitem__)
        figures = ", ".join(f"{name} {100 * self.errors[name]:.1f} %" for name in order)
        how = "changed copies of the single images" if self.views else "each image left out"
        return f"encoder {self.encoder}, chosen by {how}: {figures} wrong"


def candidates() -> list[str]:
    """The installed encoders for anybody's images."""
    installed = installed_encoders()
    return [name for name in GENERAL if name in installed]


def choose(classifier: FewShotClassifier, given: Given) -> Choice:
    """The one of the `candidates` that knows some pictures best, by `judged`; the classifier is not changed.

    Args:
        classifier: whose settings are taken.
        given: the pictures and labels, for an encoder's channels and size.

    Raises:
        InputError: if a picture or a label cannot be used, or there is one class alone.
    """
    errors, losses, alone = {}, {}, False
    for name in candidates():
        twin = type(classifier)(**{**classifier.get_params(), "encoder": name})
        twin.encoder_, twin._prior = twin._open()
        X, y = given(twin.encoder_.config.channels, twin.encoder_.config.size)
        images, named = twin._images(X, True), as_labels(y)
        if len(images) != len(named):
            raise InputError(f"{len(images)} pictures and {len(named)} labels; give one label per picture.")
        labels = torch.from_numpy(positions(np.unique(named), named))
        counts = torch.bincount(labels)
        if len(counts) < 2:
            raise InputError("the encoder 'auto' needs pictures of two classes or more to choose by; name an encoder.")
        alone = bool((counts > 1).double().mean() < 0.5)
        rows = _spread(labels, MOST // (1 + VIEWS) if alone else MOST)
        _, labels = labels[rows].unique(return_inverse=True)
        images = images[rows]
        features, views = twin._features(images), None
        if alone:
            generator = torch.Generator().manual_seed(0)
            views = torch.stack([twin._features(augment(images, VIEW, generator)) for _ in range(VIEWS)], 1)
        errors[name], losses[name] = judged(features, views, labels, twin._prior)
    return Choice(min(losses, key=losses.__getitem__), errors, losses, alone)


def _spread(labels: Tensor, most: int) -> Tensor:
    """Rows of at most so many images, of each class as many as of the others, the first ones."""
    ranks = torch.zeros_like(labels)
    for label in labels.unique().tolist():
        own = labels == label
        ranks[own] = torch.arange(int(own.sum()))
    order = torch.argsort(ranks, stable=True)
    if len(labels.unique()) * 2 > most:  # whole classes are left out, so that each has its second image
        order = torch.argsort(labels, stable=True)
        order = order[ranks[order] < 2]
    return order[:most].sort().values


def judged(features: Tensor, views: Tensor | None, labels: Tensor, prior: Calibration | None) -> tuple[float, float]:
    """An encoder's error and loss on images whose classes are known.

    Args:
        features: ``[n, D]``.
        views: ``[n, V, D]`` of changed copies; None leaves each image out instead.
        labels: int64 ``[n]``.
        prior: the encoder's calibration.
    """
    classes = int(labels.max()) + 1
    calibration = adapt(prior, features, labels, classes)
    if views is None:
        distances, counts, own = left_out(features, labels, classes)
        logits = gaussian_logits(distances, counts.clamp(min=1), calibration).masked_fill(counts == 0, -torch.inf)
    else:
        rows = F.one_hot(labels, classes).to(features.dtype)
        counts = rows.sum(0)
        prototypes = rows.T @ features / counts.unsqueeze(-1)
        own = labels.repeat_interleave(views.shape[1])
        logits = gaussian_logits(squared_distances(views.flatten(0, 1), prototypes), counts, calibration)
    return float((logits.argmax(1) != own).double().mean()), float(F.cross_entropy(logits, own))
