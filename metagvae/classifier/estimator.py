"""A few-shot classifier as a scikit-learn estimator: pictures in, a trained encoder inside, nothing trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from episodes import InputError
from episodes.paths import expanded
from episodes.torch_defaults import plain_defaults
from metagvae.classifier.arrays import Shape, is_table
from metagvae.classifier.calibration import Calibration, adapt, fit_temperature, shortened
from metagvae.classifier.choice import AUTO, Given, choose
from metagvae.classifier.inputs import collect, collect_each
from metagvae.classifier.label_sets import FEW, check_sets, ranked_labels, sets_of
from metagvae.classifier.labels import accuracy, as_labels, is_among, positions, union, with_none
from metagvae.classifier.pictures import Pictures, batches
from metagvae.classifier.settings import check_settings
from metagvae.classifier.source import opened
from metagvae.classifier.support import Support
from metagvae.compute.device import Device
from metagvae.encoders.encoder import Encoder
from metagvae.encoders.vectors import Vectors
from metagvae.zoo.card import EncoderCard

DEFAULT_ENCODER = "handwriting"  # the least error on images as they come (docs/classifier.md)
_RIDGE_TEMPERATURE = 0.5  # between the best ones on Omniglot's validation classes, 0.2 (1 shot) and 1.1 (5 shots)


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Classes from a few pictures each, by a trained encoder; `fit` only embeds the pictures and remembers them.

    Pictures (X) are arrays or tensors ``[n, H, W]``, ``[n, H, W, C]`` or ``[n, C, H, W]``; rows ``[n, D]``, each a
    picture unrolled; or a list of paths, PIL images, encoded bytes, open files, or arrays of one picture each. They
    are turned upright by their EXIF orientation, laid over white where transparent, cropped to a square, resized,
    and brought to the encoder's channels and polarity. One picture alone is refused: it goes in a list.

    Args:
        encoder: a shipped name, an encoder or run folder, ``timm:NAME``, ``torchvision:NAME``, ``hub:ID``; or an
            encoder, of which `fit` takes a copy in float32: what becomes of it later changes nothing here, and its
            mode, features, precision and device stay as they are. One under which pictures touch each other (norm
            ``support``, ``transductive``) is refused. ``auto`` is the one of ``handwriting`` and ``photos`` that knows
            the pictures fitted on best, each left out; see `metagvae.classifier.choice`. ``vectors`` takes X for
            features: rows ``[n, D]`` of finite numbers, from any source.
        head: ``prototype``, the class with the nearest mean feature (Snell et al., NeurIPS 2017), with classes of
            few pictures not punished for it; or ``ridge``, regression on unit features (Bertinetto et al., ICLR 2019).
        penalty: of the ridge head.
        features: what the encoder returns; None keeps its own choice.
        invert: turn bright into dark. ``auto``, for encoders of bright strokes on black, does it if the borders of
            the first pictures are mostly bright: ink on paper.
        value_range: the numbers of black and white in arrays, and in files of 16 or 32 bits. None: 0 and 255 for
            uint8 and for numbers whose largest is between 128 and 255; 0 and 1 for numbers that lie in between; else
            the smallest and largest number of the first `fit`. Files of 8 bits and PIL images have their own scale.
            Numbers plainly on another scale than the first ones are refused.
        none_label: what `predict` says of pictures whose `novelty` is above ``novelty_threshold``; None for never.
            Answers are objects where it is of another type than the labels, such as ``"none"`` among integers.
        novelty_threshold: 1 refuses some 5 % of genuine pictures where the encoder's calibration holds.
        device: ``auto``, ``cpu``, ``cuda``.

    Attributes:
        classes_: the labels seen, sorted, of the type they were given in.
        choice_: of the encoder ``auto``: which it was, and the figures it was chosen by.
        encoder_: the encoder's copy, in evaluation mode.
        support_: float32 ``[n, D]``, the features of all pictures fitted on, at length 1 if the card says so.
        labels_: int64 ``[n]``, positions in ``classes_``.
        scale_: how numbers become brightness.
        calibration_: temperature and spread; see `metagvae.classifier.calibration`.
        left_out_error_: the share of pictures put into a wrong class when left out themselves, among those whose
            class has another; NaN if none has.
        n_features_in_: D, if the pictures came as rows.

    Example:
        >>> import numpy as np
        >>> from metagvae import FewShotClassifier
        >>> images = np.zeros((4, 28, 28), dtype=np.uint8)
        >>> images[:2, 4:24, 13:15] = 255  # two upright strokes, then two level ones
        >>> images[2:, 13:15, 4:24] = 255
        >>> classifier = FewShotClassifier(device="cpu").fit(images, ["upright", "upright", "level", "level"])
        >>> classifier.predict(images[1:3]).tolist()
        ['upright', 'level']
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
        """Remembers the pictures; whatever was fitted before is forgotten, unless this fails.

        Raises:
            InputError: if a picture, a label or a setting cannot be used.
        """
        with self._all_or_nothing():
            chosen = isinstance(X, Pictures)  # at the size of an encoder that was chosen before
            for name in [name for name in vars(self) if name.endswith("_") or name in ("_prior", "_card", "_like")]:
                if not (chosen and name == "choice_"):
                    del self.__dict__[name]
            return self._add(X, y, None)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> FewShotClassifier:
        """Adds pictures, of known classes or of new ones. The scale of numbers stays that of the first call.

        Args:
            classes: labels to know of beforehand; none is ever predicted before a picture of it was seen.

        Raises:
            InputError: as `fit`; labels of another type than the ones known are refused.
        """
        with self._all_or_nothing():
            return self._add(X, y, classes)

    def predict(self, X: Any) -> np.ndarray:
        """Labels ``[n]``; ``none_label`` where no class is near, if it is set."""
        return self.said(*self.ask(X))

    def said(self, logits: Tensor, novelty: Tensor) -> np.ndarray:
        """The labels of what `ask` gave."""
        labels: np.ndarray = self.classes_[logits.argmax(1).numpy()]
        if self.none_label is None:
            return labels
        return with_none(labels, novelty.numpy() > self.novelty_threshold, self.none_label)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of pictures put into their own class; ``none_label`` is right where y says so too."""
        return accuracy(self.predict(X), y, self.none_label, sample_weight)

    def predict_proba(self, X: Any) -> np.ndarray:
        """float64 ``[n, classes]``: given that the picture is of one of the classes, which."""
        return self.ask(X)[0].softmax(1).numpy()

    def predict_set(self, X: Any, coverage: float = 0.9, unlabelled: Any = "auto") -> list[list[Any]]:
        """Labels that a picture may have, likelier ones first; its own is among them with probability ``coverage``.

        "None of these" (``none_label``, if it is set) is one of the labels: as large a share of pictures of other
        classes have it in their sets. The sets are calibrated on auxiliary tasks, whose scores the encoder's card
        keeps, and within the support where a class has two pictures; see `metagvae.classifier.conformal`, and
        ``docs/sets.md`` for how far that holds.

        Args:
            X: pictures, as everywhere.
            coverage: in (0, 1).
            unlabelled: further pictures, most of them of the classes, that tell how far such pictures lie from their
                examples. ``auto`` takes X itself where every class has one picture and X has ten or more: the sets then
                depend on what they are asked for together with. None for no others, as in `predict`.

        Raises:
            InputError: if a picture or ``coverage`` cannot be used, or the head is ``ridge``.
        """
        check_sets(self, coverage)
        check_is_fitted(self)
        with plain_defaults():
            features, further = self._embed(X, first=False), None
            if isinstance(unlabelled, str) and unlabelled == "auto":
                if len(self.labels_) == len(np.unique(self.labels_)) and len(features) >= FEW:
                    further = features
            elif unlabelled is not None:
                further = self._embed(unlabelled, first=False)
            return ranked_labels(self, sets_of(self, further), features, coverage)

    def distances(self, X: Any) -> np.ndarray:
        """float64 ``[n, classes]``: distance of each picture's feature from each class's mean feature."""
        check_is_fitted(self)
        with plain_defaults():
            return self.support.distances(self._embed(X, first=False)).sqrt().numpy()

    def embed(self, X: Any) -> Tensor:
        """float32 ``[n, D]``: the features by which pictures are compared."""
        check_is_fitted(self)
        with plain_defaults():
            return self._embed(X, first=False)

    def novelty(self, X: Any) -> np.ndarray:
        """float64 ``[n]``: how far each picture is from its nearest class; above 1 speaks for none of the classes.

        Squared distance in units of what all but 5 % of genuine pictures of a class keep to, by the encoder's
        calibration and the spread of the pictures fitted on.
        """
        return self.ask(X)[1].numpy()

    def collect(self, items: Iterable[Any], problems: dict[int, str] | None = None) -> Pictures:
        """Pictures brought to the encoder's size one after the other, for `fit` and `predict`.

        Of an iterable that opens each as it is asked for, no two are ever held at full size.

        Args:
            items: paths, PIL images, encoded bytes or arrays, one picture each.
            problems: gets the reasons of those that cannot be used, by their number; they are left out. None raises.

        Raises:
            InputError: if no picture can be used.
        """
        with plain_defaults():
            config = (self.encoder_ if hasattr(self, "encoder_") else self._open()[0]).config
            return collect_each(items, config.channels, config.size, problems)

    def open_for(self, given: Given) -> Encoder:
        """The encoder for some pictures, not yet fitted; if it is ``auto``, the one that these speak for.

        Args:
            given: the pictures and labels, for an encoder's channels and size.
        """
        with plain_defaults():
            if self.encoder == AUTO:
                self.choice_ = choose(self, given)
            return self._open()[0]

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """A failure within leaves everything as it was."""
        before = dict(self.__dict__)
        try:
            with plain_defaults():
                yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _add(self, X: Any, y: Any, classes: Any) -> FewShotClassifier:
        check_settings(self)
        first = not hasattr(self, "support_")
        labels = as_labels(y)
        if first:
            if self.encoder == AUTO and not hasattr(self, "choice_"):
                self.choice_ = choose(self, lambda channels, size: (X, labels))
            self.encoder_, self._card, self._prior = self._open()
        features = self._embed(X, first)
        if len(features) != len(labels):
            raise InputError(
                f"{len(features)} pictures and {len(labels)} labels: inconsistent numbers of samples; give one label "
                "per picture."
            )
        seen = union(np.unique(labels), as_labels(classes) if classes is not None else labels[:0])
        if first:
            self.classes_ = seen
            self.support_, self.labels_ = features.numpy(), positions(seen, labels)
        else:
            known = self.classes_
            self.classes_ = union(known, seen)
            before = positions(self.classes_, known)[self.labels_]
            self.support_ = np.concatenate([self.support_, features.numpy()])
            self.labels_ = np.concatenate([before, positions(self.classes_, labels)])
        if self.none_label is not None and is_among(self.none_label, self.classes_):
            raise InputError(f"none_label is {self.none_label!r}, which is one of the classes; choose another.")
        return self._calibrate()

    def _open(self) -> tuple[Encoder, EncoderCard, Calibration | None]:
        encoder, card = opened(self.source, self.features)
        return encoder, card, Calibration.read(card.details, encoder.features)

    @property
    def source(self) -> str | Path | Encoder:
        """The encoder's name, or the encoder given; of ``auto`` the name of the one chosen."""
        if self.encoder != AUTO:
            return self.encoder
        if not hasattr(self, "choice_"):
            raise InputError("the encoder 'auto' is chosen by pictures whose classes are known; call fit first.")
        return self.choice_.encoder

    def _embed(self, X: Any, first: bool) -> Tensor:
        """Features ``[n, D]``, float32 on the CPU."""
        if isinstance(self.encoder_, Vectors):
            rows = validate_data(self, X, reset=first, dtype=np.float32, ensure_min_samples=1)
            self.encoder_.config.length = rows.shape[1]
            return torch.from_numpy(np.array(rows))
        return self._features(self._images(X, first))

    def _images(self, X: Any, first: bool) -> Tensor:
        """Pictures ``[n, C, H, W]`` in [0, 1] as the encoder takes them."""
        config = self.encoder_.config
        if is_table(X):
            if first or hasattr(self, "n_features_in_"):
                X = validate_data(self, X, reset=first, dtype="numeric", ensure_min_samples=1)
        elif first:
            self.__dict__.pop("n_features_in_", None)
        pictures = collect(X, config.channels, config.size, getattr(self, "_like", None), first)
        if first:
            invert = bool(self.invert) if self.invert != "auto" else None if config.polarity == "ink" else False
            self.scale_ = pictures.scale(self.value_range, invert)
            self._like: Shape | None = pictures.shape
        return pictures.on(self.scale_)

    def _features(self, images: Tensor) -> Tensor:
        device = Device.choose(self.device, "float32")
        device.place(self.encoder_)
        with torch.no_grad():
            parts = [self.encoder_(device.layout(part.to(device.device))).cpu().float() for part in batches(images)]
        features = torch.cat(parts)
        if not torch.isfinite(features).all():
            raise InputError(
                "the encoder gives features that are not finite: its weights are damaged, or those of another network."
            )
        return shortened(features, self._prior.normalise if self._prior else 0.0)

    @property
    def support(self) -> Support:
        """The features of the pictures fitted on, with their labels."""
        return Support(torch.from_numpy(self.support_), torch.from_numpy(self.labels_), len(self.classes_))

    def _calibrate(self) -> FewShotClassifier:
        support = self.support
        self.calibration_ = adapt(self._prior, support.features, support.labels, support.classes)
        self.temperature_ = self.calibration_.temperature
        if self.head == "ridge":
            logits, own = support.left_out_ridge(self.penalty)
            self.temperature_ = fit_temperature(logits, own, _RIDGE_TEMPERATURE)
        else:
            logits, own = support.left_out_prototypes(self.calibration_)
        self.left_out_error_ = float((logits.argmax(1) != own).double().mean())
        return self

    def ask(self, X: Any) -> tuple[Tensor, Tensor]:
        """Logits ``[n, classes]``, divided by the temperature, and the novelty ``[n]``; float64."""
        check_is_fitted(self)
        with plain_defaults():
            return self._answer(self._embed(X, first=False))

    def _answer(self, features: Tensor) -> tuple[Tensor, Tensor]:
        support = self.support
        distances = support.distances(features)
        novelty = support.novelty(distances, self.calibration_)
        if self.head == "prototype":
            return support.prototype_logits(distances, self.calibration_), novelty
        return support.ridge_logits(features, self.penalty) / self.temperature_, novelty

    def save(self, folder: str | Path) -> None:
        """Writes the classifier into a folder of its own, its encoder included; no pickle. See `load`."""
        from metagvae.classifier.files import save_classifier

        save_classifier(self, expanded(folder))

    @classmethod
    def load(cls, folder: str | Path) -> FewShotClassifier:
        """A classifier that `save` wrote.

        Raises:
            InputError: if the folder holds none, or its files do not fit each other.
        """
        from metagvae.classifier.files import load_classifier

        return load_classifier(cls, expanded(folder))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
