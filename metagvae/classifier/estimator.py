"""A few-shot classifier as a scikit-learn estimator: pictures in, a trained encoder inside, nothing trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from episodes import InputError
from metagvae.classifier.calibration import (
    Calibration,
    adapt,
    fit_temperature,
    gaussian_logits,
    left_out,
    squared_distances,
)
from metagvae.classifier.inputs import batches, collect
from metagvae.compute.device import Device
from metagvae.encoders.encoder import Encoder
from metagvae.encoders.norm import norm_policy
from metagvae.learners import RidgeRegression
from metagvae.zoo.load import load_encoder, read_card

HEADS = ("prototype", "ridge")
DEFAULT_ENCODER = "guided-protonet-omniglot"
_RIDGE_TEMPERATURE = 0.5  # between the best ones on Omniglot's validation classes, 0.2 (1 shot) and 1.1 (5 shots)


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Classes from a few pictures each, by a trained encoder; `fit` only embeds the pictures and remembers them.

    Pictures (X) are arrays or tensors ``[n, H, W]``, ``[n, H, W, C]`` or ``[n, C, H, W]``; rows ``[n, D]``, each a
    picture unrolled; or a list of paths, PIL images, or arrays of one picture each. They are cropped to a square,
    resized, and brought to the encoder's channels and polarity.

    Args:
        encoder: a shipped name, an encoder or run folder, ``timm:NAME``, ``torchvision:NAME``, ``hub:ID``; or an
            encoder. One under which pictures touch each other (norm ``support``, ``transductive``) is refused.
        head: ``prototype``, the class with the nearest mean feature (Snell et al., NeurIPS 2017), with classes of
            few pictures not punished for it; or ``ridge``, regression on unit features (Bertinetto et al., ICLR 2019).
        penalty: of the ridge head.
        features: what the encoder returns; None keeps its own choice.
        invert: turn bright into dark. ``auto``, for encoders of bright strokes on black, does it if the borders of
            the first pictures are mostly bright: ink on paper.
        value_range: the numbers of black and white. None: 0 and 255 for uint8, 0 and 1 for numbers that lie in
            between, else the smallest and largest number of the first `fit`.
        none_label: what `predict` says of pictures whose `novelty` is above ``novelty_threshold``; None for never.
        novelty_threshold: 1 refuses some 5 % of genuine pictures where the encoder's calibration holds.
        device: ``auto``, ``cpu``, ``cuda``.

    Attributes:
        classes_: the labels seen, sorted.
        encoder_: the encoder, in evaluation mode.
        support_: float32 ``[n, D]``, the features of all pictures fitted on.
        labels_: int64 ``[n]``, positions in ``classes_``.
        scale_: how numbers become brightness.
        calibration_: temperature and spread; see `metagvae.classifier.calibration`.
        left_out_error_: the share of pictures put into a wrong class when left out themselves, among those whose
            class has another; NaN if none has.
        n_features_in_: D, if the pictures came as rows.
    """

    def __init__(
        self,
        encoder: str | Path | Encoder = DEFAULT_ENCODER,
        head: str = "prototype",
        *,
        penalty: float = 0.1,
        features: list[str] | None = None,
        invert: bool | str = "auto",
        value_range: tuple[float, float] | None = None,
        none_label: Any = None,
        novelty_threshold: float = 1.0,
        device: str = "auto",
    ) -> None:
        self.encoder = encoder
        self.head = head
        self.penalty = penalty
        self.features = features
        self.invert = invert
        self.value_range = value_range
        self.none_label = none_label
        self.novelty_threshold = novelty_threshold
        self.device = device

    def fit(self, X: Any, y: Any) -> FewShotClassifier:
        """Remembers the pictures; whatever was fitted before is forgotten.

        Raises:
            InputError: if a picture or a setting cannot be used.
        """
        for name in ("classes_", "support_", "labels_", "scale_", "encoder_"):
            self.__dict__.pop(name, None)
        return self._add(X, y, None)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> FewShotClassifier:
        """Adds pictures, of known classes or of new ones. The scale of numbers stays that of the first call.

        Args:
            classes: labels to know of beforehand; none is ever predicted before a picture of it was seen.
        """
        return self._add(X, y, classes)

    def predict(self, X: Any) -> np.ndarray:
        """Labels ``[n]``; ``none_label`` where no class is near, if it is set."""
        logits, novelty = self._ask(X)
        labels = self.classes_[logits.argmax(1).numpy()]
        if self.none_label is None:
            return labels
        none = np.asarray(novelty.numpy() > self.novelty_threshold)
        mixed = np.result_type(labels.dtype, np.asarray(self.none_label).dtype) if labels.dtype.kind != "O" else object
        labels = labels.astype(mixed)
        labels[none] = self.none_label
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """float64 ``[n, classes]``: given that the picture is of one of the classes, which."""
        return self._ask(X)[0].softmax(1).numpy()

    def distances(self, X: Any) -> np.ndarray:
        """float64 ``[n, classes]``: distance of each picture's feature from each class's mean feature."""
        check_is_fitted(self)
        return self._distances(self._embed(X, first=False)).sqrt().numpy()

    def novelty(self, X: Any) -> np.ndarray:
        """float64 ``[n]``: how far each picture is from its nearest class; above 1 speaks for none of the classes.

        Squared distance in units of what all but 5 % of genuine pictures of a class keep to, by the encoder's
        calibration and the spread of the pictures fitted on.
        """
        return self._ask(X)[1].numpy()

    def _add(self, X: Any, y: Any, classes: Any) -> FewShotClassifier:
        self._check_settings()
        first = not hasattr(self, "support_")
        if y is None:
            raise InputError("requires y to be passed, but the target y is None.")
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        if first:
            self._load()
        features = self._embed(X, first).cpu()
        if len(features) != len(labels):
            raise InputError(
                f"{len(features)} pictures and {len(labels)} labels: inconsistent numbers of samples; give one label "
                "per picture."
            )
        seen = np.unique(labels) if classes is None else np.union1d(labels, column_or_1d(classes))
        if first:
            self.classes_ = seen
            self.support_, self.labels_ = features.numpy(), np.searchsorted(seen, labels)
        else:
            known = self.classes_
            self.classes_ = np.union1d(known, seen)
            before = np.searchsorted(self.classes_, known)[self.labels_]
            self.support_ = np.concatenate([self.support_, features.numpy()])
            self.labels_ = np.concatenate([before, np.searchsorted(self.classes_, labels)])
        return self._calibrate()

    def _check_settings(self) -> None:
        if self.head not in HEADS:
            raise InputError(f"head must be one of {', '.join(HEADS)}; received {self.head!r}.")
        if not self.penalty > 0:
            raise InputError(f"penalty must be positive; received {self.penalty}.")
        if self.invert not in ("auto", True, False):
            raise InputError(f"invert must be 'auto', True or False; received {self.invert!r}.")

    def _load(self) -> None:
        """The encoder and what its card says of its distances."""
        if isinstance(self.encoder, Encoder):
            self.encoder_, details = self.encoder.eval(), {}
            if self.features is not None:
                self.encoder_.features = self.features
        else:
            self.encoder_ = load_encoder(self.encoder, self.features)
            details = read_card(self.encoder).details
        policy = norm_policy(self.encoder_)
        if policy not in ("running", "group", "none"):
            raise InputError(
                f"the encoder {self.encoder} has the norm policy '{policy}', under which pictures touch each other; "
                "a classifier of single pictures needs 'running' or 'group'."
            )
        self._prior = Calibration.read(details, self.encoder_.features)

    def _embed(self, X: Any, first: bool) -> Tensor:
        """Features ``[n, D]``, float32 on the CPU."""
        config = self.encoder_.config
        if _is_table(X):
            X = validate_data(self, X, reset=first, dtype="numeric", ensure_min_samples=1)
        elif first:
            self.__dict__.pop("n_features_in_", None)
        pictures = collect(X, config.channels, config.size)
        if first:
            invert = self.invert if isinstance(self.invert, bool) else None if config.polarity == "ink" else False
            self.scale_ = pictures.scale(self.value_range, invert)
        images = pictures.on(self.scale_)
        device = Device.choose(self.device, "float32")
        device.place(self.encoder_)
        with torch.no_grad():
            return torch.cat([self.encoder_(device.layout(part.to(device.device))).cpu() for part in batches(images)])

    def _state(self) -> tuple[Tensor, Tensor, Tensor]:
        """Features ``[n, D]`` of the pictures fitted on, their labels, and how many each class has."""
        labels = torch.from_numpy(self.labels_)
        return torch.from_numpy(self.support_), labels, torch.bincount(labels, minlength=len(self.classes_))

    def _calibrate(self) -> FewShotClassifier:
        support, labels, counts = self._state()
        self.calibration_ = adapt(self._prior, support, labels, len(self.classes_))
        self.temperature_ = self.calibration_.temperature
        if self.head == "ridge":
            logits = self._ridge_left_out(support, labels)
            many = counts[labels] > 1
            self.temperature_ = fit_temperature(logits[many], labels[many], _RIDGE_TEMPERATURE)
            wrong = logits[many].argmax(1) != labels[many]
        else:
            distances, held, own = left_out(support, labels, len(self.classes_))
            known = gaussian_logits(distances, held.clamp(min=1), self.calibration_).masked_fill(held == 0, -torch.inf)
            wrong = known.argmax(1) != own
        self.left_out_error_ = float(wrong.double().mean())
        return self

    def _distances(self, features: Tensor) -> Tensor:
        """Squared distances ``[n, classes]`` to the classes' means; infinite for a class without pictures."""
        support, labels, counts = self._state()
        rows = F.one_hot(labels, len(self.classes_)).double()
        prototypes = rows.T @ support.double() / counts.clamp(min=1).unsqueeze(-1)
        return squared_distances(features, prototypes).masked_fill(counts == 0, torch.inf)

    def _ask(self, X: Any) -> tuple[Tensor, Tensor]:
        """Logits ``[n, classes]``, divided by the temperature, and the novelty ``[n]``; float64."""
        check_is_fitted(self)
        features = self._embed(X, first=False)
        distances = self._distances(features)
        support, labels, counts = self._state()
        limit = self.calibration_.spread * self.calibration_.tail
        novelty = (distances / (1 + 1 / counts.clamp(min=1))).amin(1) / limit
        if self.head == "prototype":
            return gaussian_logits(distances, counts.clamp(min=1), self.calibration_), novelty
        ridge = self._ridge()
        with torch.no_grad():
            weights = ridge.solve(support.double()[None, None], F.one_hot(labels, len(self.classes_)).double())
            logits = ridge.ask_head(weights, features.double()[None, None])[0]
        return logits.masked_fill(counts == 0, -torch.inf) / self.temperature_, novelty

    def _ridge(self) -> RidgeRegression:
        return RidgeRegression(torch.nn.Identity(), penalty=self.penalty, normalise=True).double()

    def _ridge_left_out(self, support: Tensor, labels: Tensor) -> Tensor:
        """Logits ``[n, classes]`` of each picture by the ridge head fitted on the others, in closed form."""
        targets = F.one_hot(labels, len(self.classes_)).double()
        ridge = self._ridge()
        with torch.no_grad():
            rows = support.double()[None, None]
            fitted = ridge.ask_head(ridge.solve(rows, targets), rows)[0]
            hat = ridge.ask_head(ridge.solve(rows, torch.eye(len(rows[0, 0])).double()), rows)[0].diagonal()
        # both came times the head's scale; (y_i - h y_i') / (1 - h) of ordinary leave-one-out
        scale = ridge.log_scale.exp().detach()
        leverage = (hat / scale).unsqueeze(1)
        return (fitted - leverage * targets * scale) / (1 - leverage)

    def save(self, folder: str | Path) -> None:
        """Writes the classifier into a folder of its own, its encoder included; no pickle. See `load`."""
        from metagvae.classifier.files import save_classifier

        save_classifier(self, Path(folder).expanduser())

    @staticmethod
    def load(folder: str | Path) -> FewShotClassifier:
        """A classifier that `save` wrote.

        Raises:
            InputError: if the folder holds none, or its files do not fit each other.
        """
        from metagvae.classifier.files import load_classifier

        return load_classifier(Path(folder).expanduser())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _is_table(X: Any) -> bool:
    """Whether X is rows of numbers, a matter for scikit-learn's own checks."""
    if isinstance(X, Tensor):
        return False
    if hasattr(X, "ndim") and hasattr(X, "shape"):
        texts = X.ndim == 1 and getattr(getattr(X, "dtype", None), "kind", "O") in "OUS"
        return X.ndim <= 2 and not texts
    if isinstance(X, list | tuple):
        numbers = all(isinstance(row, list | tuple | int | float) for row in X)
        return len(X) > 0 and (numbers or all(isinstance(row, np.ndarray) and row.ndim == 1 for row in X))
    return hasattr(X, "toarray") or hasattr(X, "__array__")
