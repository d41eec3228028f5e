"""A `FewShotClassifier` on disk: settings as JSON, features and the encoder as safetensors; no pickle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from episodes import InputError
from episodes.untrusted.plain_files import read_json
from metagvae.classifier.calibration import Calibration
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.classifier.inputs import Scale
from metagvae.encoders.encoder import Encoder
from metagvae.storage.atomic_files import write_json
from metagvae.storage.tensors import read_tensors, write_tensors
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.load import load_encoder, read_card, save_encoder

SETTINGS, SUPPORT, ENCODER = "classifier.json", "support.safetensors", "encoder"
_FORMAT = "metagvae-classifier/1"
_KINDS = {"b": "bool", "i": "int64", "u": "uint64", "f": "float64", "U": "str", "O": "str"}


def save_classifier(classifier: FewShotClassifier, folder: Path) -> None:
    """Writes ``classifier.json``, ``support.safetensors`` and ``encoder/``.

    Raises:
        InputError: if the classifier is not fitted, its labels are of a kind that JSON has not, or the folder
            already holds something.
    """
    if not hasattr(classifier, "support_"):
        raise InputError("the classifier is not fitted yet; call fit before save.")
    kind = classifier.classes_.dtype.kind
    if kind not in _KINDS or (kind == "O" and not all(isinstance(label, str) for label in classifier.classes_)):
        raise InputError(f"labels of type {classifier.classes_.dtype} cannot be saved; use text, numbers or booleans.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty; choose another folder.")
    source = classifier.encoder
    card = EncoderCard() if isinstance(source, Encoder) else read_card(source)
    save_encoder(classifier.encoder_, folder / ENCODER, card)
    settings = {key: value for key, value in classifier.get_params().items() if key not in ("encoder", "device")}
    tensors = {"support": torch.from_numpy(classifier.support_), "labels": torch.from_numpy(classifier.labels_)}
    write_tensors(folder / SUPPORT, tensors)
    content = {
        "format": _FORMAT,
        "settings": settings,
        "classes": {"kind": _KINDS[kind], "values": classifier.classes_.tolist()},
        "scale": asdict(classifier.scale_),
        "calibration": classifier.calibration_.to_dict(),
        "prior": classifier._prior.to_dict() if classifier._prior else None,
        "n_features_in": getattr(classifier, "n_features_in_", None),
    }
    try:
        write_json(folder / SETTINGS, content)
    except TypeError as error:
        raise InputError(f"a setting of the classifier is none that JSON has ({error}).") from error


def load_classifier(folder: Path) -> FewShotClassifier:
    """See `FewShotClassifier.load`."""
    path = folder / SETTINGS
    if not path.is_file():
        raise InputError(f"{folder} holds no classifier: {SETTINGS} is missing. Give a folder that `save` wrote.")
    encoder = load_encoder(folder / ENCODER)
    tensors = read_tensors(folder / SUPPORT)
    try:
        content: dict[str, Any] = read_json(path, "the settings of a classifier")
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {_FORMAT!r}")
        settings = content["settings"]
        if isinstance(settings.get("value_range"), list):
            settings["value_range"] = tuple(settings["value_range"])
        made = FewShotClassifier(str(folder / ENCODER), **settings)
        made._check_settings()
        kind = content["classes"]["kind"]
        if kind not in _KINDS.values():
            raise ValueError(f"labels of kind {kind!r}")
        made.classes_ = np.array(content["classes"]["values"], dtype=kind)
        made.scale_ = Scale(**content["scale"])
        made.calibration_ = Calibration(**content["calibration"])
        made._prior = Calibration(**content["prior"]) if content["prior"] else None
        if content["n_features_in"] is not None:
            made.n_features_in_ = int(content["n_features_in"])
        support, labels = tensors["support"], tensors["labels"]
        if support.ndim != 2 or support.shape[1] != encoder.feature_size or labels.shape != support.shape[:1]:
            raise ValueError(f"features {list(support.shape)} and labels {list(labels.shape)} do not fit the encoder")
        if not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= len(made.classes_):
            raise ValueError(f"labels outside the {len(made.classes_)} classes")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(f"{folder} is not a saved classifier that can be used ({error}).") from error
    made.encoder_ = encoder
    made.support_, made.labels_ = support.float().numpy(), labels.long().numpy()
    return made._calibrate()
