"""The encoder that suits some images, chosen by these alone.

Where classes have two images, each is left out, and the others say what it is. Where they have one, nothing tells how
far two images of a class lie from each other: changed copies of an image share details that another image of its class
does not, and every encoder knows them again. There the look of the images decides: among encoders for anybody's images
the one whose training images looked most like these; or one of a benchmark's, if these look just like its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import InputError
from metagvae import zoo
from metagvae.classifier.calibration import Calibration, adapt, gaussian_logits, left_out
from metagvae.classifier.inputs import collect
from metagvae.classifier.labels import as_labels, positions
from metagvae.classifier.look import SIDE, Look, looks
from metagvae.zoo.load import installed_encoders

if TYPE_CHECKING:
    from metagvae.classifier.estimator import FewShotClassifier

Given = Callable[[int, int], tuple[Any, Any]]
AUTO = "auto"
GENERAL = ("handwriting", "photos")  # for anybody's images
MOST = 400  # images looked at
_ODD = 50.0  # nats, at most, that one image counts
_ALIKE = 0.01  # the probability from which images are just like others


@dataclass(frozen=True)
class Choice:
    """The encoder chosen for some images, and what it was chosen by.

    Attributes:
        encoder: its name.
        errors: the share of images put into a wrong class when left out, by encoder; empty if the look decided.
        losses: by encoder, the mean over images of what it was chosen by: minus the logarithm of the own class's
            probability, which tells more than the share of errors among few images; or of the look's density.
        by_look: whether the images' look decided, for want of a second image of a class.
    """

    encoder: str
    errors: dict[str, float]
    losses: dict[str, float]
    by_look: bool

    def sentence(self) -> str:
        """The choice and its figures."""
        order = sorted(self.losses, key=self.losses.__getitem__)
        if self.by_look:
            figures = ", ".join(f"{name} {self.losses[name]:.1f}" for name in order)
            return f"encoder {self.encoder}, chosen by the look of the single images; surprise in nats: {figures}"
        figures = ", ".join(f"{name} {100 * self.errors[name]:.1f} %" for name in order)
        return f"encoder {self.encoder}, chosen by each image left out: {figures} wrong"


def candidates() -> list[str]:
    """The installed encoders for anybody's images."""
    installed = installed_encoders()
    return [name for name in GENERAL if name in installed]


def known_looks() -> dict[str, Look]:
    """The looks of the installed encoders whose cards have one."""
    found = {name: Look.read(zoo.read_card(name).details) for name in installed_encoders()}
    return {name: look for name, look in found.items() if look is not None}


def choose(classifier: FewShotClassifier, given: Given) -> Choice:
    """The encoder that knows some pictures best when each is left out, or whose look is theirs; changes nothing.

    Args:
        classifier: whose settings are taken.
        given: the pictures and labels, for an encoder's channels and size.

    Raises:
        InputError: if a picture or a label cannot be used, or there is one class alone.
    """
    errors, losses = {}, {}
    for name in candidates():
        twin = type(classifier)(**{**classifier.get_params(), "encoder": name})
        twin.encoder_, twin._card, twin._prior = twin._open()
        X, y = given(twin.encoder_.config.channels, twin.encoder_.config.size)
        images, named = twin._images(X, True), as_labels(y)
        if len(images) != len(named):
            raise InputError(f"{len(images)} pictures and {len(named)} labels; give one label per picture.")
        labels = torch.from_numpy(positions(np.unique(named), named))
        counts = torch.bincount(labels)
        if len(counts) < 2:
            raise InputError("the encoder 'auto' needs pictures of two classes or more to choose by; name an encoder.")
        if (counts > 1).double().mean() < 0.5:
            return chosen_by_look(_seen(classifier, given))
        rows = _spread(labels, MOST)
        _, labels = labels[rows].unique(return_inverse=True)
        errors[name], losses[name] = judged(twin._features(images[rows]), labels, twin._prior)
    return Choice(min(losses, key=losses.__getitem__), errors, losses, False)


def _seen(classifier: FewShotClassifier, given: Given) -> Tensor:
    """The pictures ``[n, 3, SIDE, SIDE]`` in [0, 1], as they are looked at."""
    pictures = collect(given(3, SIDE)[0], 3, SIDE)
    return pictures.on(pictures.scale(classifier.value_range, False))


def chosen_by_look(images: Tensor) -> Choice:
    """The choice by the look of images ``[n, 3, SIDE, SIDE]`` in [0, 1]."""
    return chosen_by_looks(looks(images[:MOST]), known_looks())


def chosen_by_looks(found: Tensor, known: dict[str, Look]) -> Choice:
    """The choice by looks ``[n, 5]``, among encoders whose training images have known looks."""
    losses = {name: float(look.surprise(found).clamp(max=_ODD).mean()) for name, look in known.items()}
    alike = {name: look.alike(found) for name, look in known.items() if name not in GENERAL}
    best = max(alike, key=alike.__getitem__, default=None)
    if best is None or alike[best] < _ALIKE:
        best = min((name for name in known if name in GENERAL), key=losses.__getitem__)
    return Choice(best, {}, losses, True)


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


def judged(features: Tensor, labels: Tensor, prior: Calibration | None) -> tuple[float, float]:
    """An encoder's error and loss on images, each left out, whose classes are known.

    Args:
        features: ``[n, D]``.
        labels: int64 ``[n]``.
        prior: the encoder's calibration.
    """
    classes = int(labels.max()) + 1
    calibration = adapt(prior, features, labels, classes)
    distances, counts, own = left_out(features, labels, classes)
    logits = gaussian_logits(distances, counts.clamp(min=1), calibration).masked_fill(counts == 0, -torch.inf)
    return float((logits.argmax(1) != own).double().mean()), float(F.cross_entropy(logits, own))
