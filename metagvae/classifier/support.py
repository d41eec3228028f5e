"""The support set of a classifier: distances of further images from it, and its own images, each left out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from metagvae.classifier.calibration import Calibration, gaussian_logits, left_out, squared_distances
from metagvae.classifier.ridge_head import ridge_left_out, ridge_logits


@dataclass(frozen=True)
class Support:
    """Features of the images fitted on, and their labels.

    Args:
        features: float32 ``[n, D]``.
        labels: int64 ``[n]`` in [0, classes).
        classes: how many are known; some may have no image yet.
    """

    features: Tensor
    labels: Tensor
    classes: int

    @cached_property
    def counts(self) -> Tensor:
        """int64 ``[classes]``: images of each class."""
        return torch.bincount(self.labels, minlength=self.classes)

    @cached_property
    def prototypes(self) -> Tensor:
        """float64 ``[classes, D]``: mean features; zero for a class without images."""
        sums = torch.zeros(self.classes, self.features.shape[1]).double()
        return sums.index_add_(0, self.labels, self.features.double()) / self.counts.clamp(min=1).unsqueeze(-1)

    def distances(self, features: Tensor) -> Tensor:
        """Squared distances ``[m, classes]`` of features ``[m, D]``; infinite for a class without images."""
        return squared_distances(features, self.prototypes).masked_fill(self.counts == 0, torch.inf)

    def novelty(self, distances: Tensor, calibration: Calibration) -> Tensor:
        """``[m]`` of `distances`: that of the nearest class, in units of what genuine images keep to."""
        limit = calibration.spread * calibration.tail
        return (distances / (1 + 1 / self.counts.clamp(min=1))).amin(1) / limit

    def prototype_logits(self, distances: Tensor, calibration: Calibration) -> Tensor:
        """``[m, classes]`` of `distances`; see `gaussian_logits`."""
        return gaussian_logits(distances, self.counts.clamp(min=1), calibration)

    def ridge_logits(self, features: Tensor, penalty: float) -> Tensor:
        """``[m, classes]`` of features ``[m, D]``, before their temperature; minus infinity for an empty class."""
        logits = ridge_logits(self.features, self.labels, self.classes, penalty, features)
        return logits.masked_fill(self.counts == 0, -torch.inf)

    def left_out_prototypes(self, calibration: Calibration) -> tuple[Tensor, Tensor]:
        """Logits ``[k, classes]`` and labels ``[k]`` of the images whose class has another, each left out itself."""
        distances, held, own = left_out(self.features, self.labels, self.classes)
        logits = gaussian_logits(distances, held.clamp(min=1), calibration)
        return logits.masked_fill(held == 0, -torch.inf), own

    def left_out_ridge(self, penalty: float) -> tuple[Tensor, Tensor]:
        """As `left_out_prototypes`, by the ridge head."""
        many = self.counts[self.labels] > 1
        return ridge_left_out(self.features, self.labels, self.classes, penalty)[many], self.labels[many]
