"""Probabilities that mean what they say, and a distance for "none of these".

A class known from K pictures is taken for a Gaussian of the pooled spread around their mean, so a further picture
of it is spread 1 + 1/K times as wide around that mean. Two numbers describe an encoder: the *temperature* that turns
squared distances into log-probabilities, and the *spread*, the mean squared distance of a picture from its class's
centre. Both hardly change with the number of classes and pictures (``docs/classifier.md`` has the measurements), so
they are fitted once, on classes that the encoder was not trained on, and kept in its card; a support set with two
pictures of a class or more moves them.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import Episodes, EpisodeSampler, EpisodeShape, ImageBank, InputError
from episodes.untrusted.typed import check_types
from metagvae.compute.device import Device
from metagvae.encoders.encoder import Encoder
from metagvae.evaluation.embedding import embed_bank

REFUSED = 0.05  # the share of genuine pictures whose novelty is above 1, on the classes fitted on
_WORTH = 20.0  # the card weighs as much as so many pictures of the support set
_SHARE = {"temperature": 0.05, "spread": 0.2}  # of the squared distance between classes, where there is no card
_TAIL = 1.9
_GAIN = 0.005  # of the error, for which features are brought to length 1


@dataclass(frozen=True)
class Calibration:
    """An encoder's scales for `squared_distances`.

    Args:
        temperature: squared distance per nat.
        spread: mean squared distance of a picture from its class's centre.
        tail: the `REFUSED` quantile of that distance, in units of its mean.
        fitted_on: which pictures.
        normalise: in [0, 1]: each feature z is taken as z / |z|^normalise before any distance, see `shortened`.
    """

    temperature: float
    spread: float
    tail: float = _TAIL
    fitted_on: str = "the support set"
    normalise: float = 0.0

    @classmethod
    def read(cls, details: dict[str, Any], features: list[str]) -> Calibration | None:
        """The calibration in an encoder's card for these features, or None."""
        every = details.get("calibration") or {}
        stored = every.get("+".join(features)) if isinstance(every, dict) else every
        if stored is None:
            return None
        return cls.checked(stored, "the encoder's card holds a calibration")

    @classmethod
    def checked(cls, stored: Any, where: str) -> Calibration:
        """One of a file's values.

        Raises:
            InputError: beginning with ``where``, if they are not positive numbers.
        """
        try:
            made = cls(**stored)
            check_types(cls, stored, "")
            if all(0 < x < math.inf for x in (made.temperature, made.spread, made.tail)) and 0 <= made.normalise <= 1:
                return made
        except (TypeError, InputError):
            pass
        raise InputError(f"{where} that is not of positive numbers: {repr(stored)[:200]}.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def shortened(features: Tensor, normalise: float) -> Tensor:
    """Features ``[n, D]`` each divided by its length to the power ``normalise``; 1 gives all of them length 1.

    As `metagvae.learners.PrototypicalNetwork` does it. Whether a network's angles say more than its lengths is a
    matter of the network, so `calibrate` chooses it.
    """
    return features / features.norm(dim=-1, keepdim=True).clamp(min=1e-6) ** normalise if normalise else features


def squared_distances(features: Tensor, prototypes: Tensor) -> Tensor:
    """``[n, N]`` of features ``[n, D]`` and prototypes ``[N, D]``; in float64, as differences of large numbers."""
    return torch.cdist(features.double(), prototypes.double()).square()


def gaussian_logits(distances: Tensor, counts: Tensor, calibration: Calibration) -> Tensor:
    """Log-probabilities ``[n, N]`` up to a constant, of squared distances to the means of K pictures each.

    The predictive density of a Gaussian class: with the same K for all classes, the nearest prototype wins; with
    different K, a class seen once is not outdone for its prototype's noise alone.

    Args:
        distances: ``[n, N]``, squared.
        counts: ``[N]`` or ``[n, N]``, pictures K of each class.
    """
    wider = 1 + 1 / counts
    return -(distances / wider + calibration.spread * wider.log()) / calibration.temperature


def left_out(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distances with each picture left out of its own class's mean.

    Args:
        features: ``[n, D]``.
        labels: int64 ``[n]``.

    Returns:
        ``[m, N]`` distances, ``[m, N]`` counts and ``[m]`` labels of the m pictures whose class has another.
    """
    rows = F.one_hot(labels, classes).to(features.dtype)
    counts = rows.sum(0)
    prototypes = rows.T @ features / counts.clamp(min=1).unsqueeze(-1)
    kept = (counts[labels] > 1).nonzero().flatten()
    own, held = labels[kept], counts.expand(len(kept), -1).clone()
    distances = squared_distances(features[kept], prototypes)
    k = counts[own]
    # |x - (K p - x) / (K - 1)| = K / (K - 1) |x - p|
    at = torch.arange(len(kept))
    distances[at, own] *= (k / (k - 1)).square()
    held[at, own] = k - 1
    return distances, held, own


def adapt(prior: Calibration | None, features: Tensor, labels: Tensor, classes: int) -> Calibration:
    """The encoder's calibration moved by a support set, each of whose pictures is judged by the others.

    Args:
        prior: the encoder's, or None; it weighs as much as `_WORTH` pictures.
        features: ``[n, D]`` of the support set.
        labels: int64 ``[n]`` in [0, classes).
    """
    if prior is None:
        prior = _guess(features, labels)
    distances, counts, own = left_out(features, labels, classes)
    if not len(own) or classes < 2:
        return prior
    at = torch.arange(len(own))
    spreads = (distances / (1 + 1 / counts))[at, own]
    spread = float((prior.spread * _WORTH + spreads.sum()) / (_WORTH + len(own)))
    moved = replace(prior, spread=max(spread, 1e-12), temperature=1.0)
    temperature = fit_temperature(gaussian_logits(distances, counts, moved), own, prior.temperature)
    return replace(moved, temperature=temperature)


def fit_temperature(logits: Tensor, labels: Tensor, prior: float) -> float:
    """The most probable temperature of logits ``[n, N]``, given labels ``[n]`` and a log-normal prior.

    The prior's width of one half says that its centre is trusted to within some two thirds.
    """

    def loss(temperature: float) -> float:
        fit = F.cross_entropy(logits / temperature, labels, reduction="sum")
        return float(fit) + (math.log(temperature / prior) / 0.5) ** 2 / 2

    return float(min(prior * np.exp(np.linspace(-2.5, 2.5, 101)), key=loss))


def _guess(features: Tensor, labels: Tensor) -> Calibration:
    """Without a card: shares of the squared distance between pictures of different classes, as two encoders had."""
    other = labels[:, None] != labels
    between = squared_distances(features, features)[other]
    scale = float(between.mean()) if len(between) else 1.0
    scale = scale if scale > 0 else 1.0
    return Calibration(_SHARE["temperature"] * scale, _SHARE["spread"] * scale)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal bins of confidence (Guo et al., ICML 2017).

    Args:
        probabilities: ``[n, N]``, rows that add up to 1.
        labels: int ``[n]``.
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[bin_of == b].mean() - confidence[bin_of == b].mean()) * (bin_of == b).sum() for b in set(bin_of)]
    return float(sum(gaps) / len(labels))


def calibrate(
    encoder: Encoder, bank: ImageBank, episodes: int = 300, seed: int = 0, device: Device | None = None
) -> Calibration:
    """Fits an encoder's calibration on episodes of a bank of classes that it was not trained on.

    The temperature minimises the cross entropy of 5-way and, where there are as many classes, 20-way episodes of 1
    and 5 shots together. Features are taken at length 1 if that lowers the error of these episodes.

    Raises:
        InputError: if the bank has too few classes or pictures for 5-way 1-shot episodes.
    """
    # a copy: the caller's encoder keeps its mode, and in training it would learn from these pictures
    encoder = copy.deepcopy(encoder).float().eval()
    features = embed_bank(encoder, bank, device or Device.choose("cpu")).cpu()
    shapes = [(way, shot) for way in (5, 20) for shot in (1, 5) if int((bank.counts >= shot + 5).sum()) >= way]
    if not shapes:
        EpisodeSampler(bank, Episodes(EpisodeShape(5, 1, 5), seed=seed, stream="validation"))  # says what is missing
    drawn = [
        EpisodeSampler(bank, Episodes(EpisodeShape(way, shot, 5), seed=seed, stream="validation"))
        .span(0, max(1, episodes * 5 // way))
        .images
        for way, shot in shapes
    ]
    told = [[_episode_distances(shortened(features, power), images) for images in drawn] for power in (0.0, 1.0)]
    wrong = [
        float(np.mean([(d.argmin(-1) != y).double().mean() for d, y in each])) for each in told
    ]  # lengths are kept where they do no harm
    normalise = 1.0 if wrong[1] < wrong[0] - _GAIN else 0.0
    return _fitted(told[int(normalise)], f"{bank.dataset}, {bank.split} split", normalise)


def _episode_distances(features: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances ``[T, N * Q, N]`` of queries, as `gaussian_logits` widens them, and their labels.

    Args:
        features: ``[M, D]``.
        images: numbers ``[T, N, K + 5]``; the last 5 are queries.
    """
    tasks, way, shot = *images.shape[:2], images.shape[2] - 5
    support, query = features[images[:, :, :shot]], features[images[:, :, shot:]].flatten(1, 2)
    distances = torch.cdist(query.double(), support.mean(2).double()).square()
    return distances / (1 + 1 / shot), torch.arange(way).repeat_interleave(5).expand(tasks, -1)


def _fitted(drawn: list[tuple[Tensor, Tensor]], fitted_on: str, normalise: float) -> Calibration:
    own = torch.cat([d.gather(-1, y[..., None]).flatten() for d, y in drawn])
    spread = float(own.mean())

    def loss(temperature: float) -> float:
        return float(
            sum(F.cross_entropy((-d / temperature).flatten(0, 1), y.flatten(), reduction="mean") for d, y in drawn)
        )

    temperature = float(min(spread * np.exp(np.linspace(-7, 2, 181)), key=loss))
    # numpy's, as torch's quantile takes no more than 16 million numbers
    tail = float(np.quantile(own.numpy(), 1 - REFUSED)) / spread
    return Calibration(temperature, spread, tail, fitted_on, normalise)
