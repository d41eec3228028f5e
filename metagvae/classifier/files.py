"""A `FewShotClassifier` on disk: settings as JSON, features and the encoder as safetensors; no pickle."""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from episodes import InputError
from episodes.untrusted.plain_files import MAX_JSON_BYTES, read_json
from episodes.untrusted.typed import check_types
from episodes.whole_files import write_beside
from metagvae import zoo
from metagvae.classifier.calibration import Calibration
from metagvae.classifier.labels import is_among
from metagvae.classifier.pictures import Scale
from metagvae.classifier.settings import check_settings, in_range
from metagvae.storage.atomic_files import check_empty, make_folder
from metagvae.storage.tensors import read_tensors, write_tensors
from metagvae.zoo.load import save_encoder

if TYPE_CHECKING:
    from metagvae.classifier.estimator import FewShotClassifier

SETTINGS, SUPPORT, ENCODER = "classifier.json", "support.safetensors", "encoder"
_FORMAT = "metagvae-classifier/1"
_KINDS = {"b": "bool", "i": "int64", "u": "uint64", "f": "float64", "U": "str", "O": "str"}
_TYPES: dict[str, Any] = {"bool": bool, "int64": int, "uint64": int, "float64": (int, float), "str": str}
_WIDE = 2**26  # bytes of an array of texts, each as wide as the longest
_AHEAD = 10_000  # classes without a picture
_RECALCULATED = 2**24  # distances between pictures and classes


def save_classifier(classifier: FewShotClassifier, folder: Path) -> None:
    """Writes ``classifier.json``, ``support.safetensors`` and ``encoder/``: all of them, or nothing.

    Raises:
        InputError: if the classifier is not fitted, its labels or settings are of a kind that JSON lacks, or the
            folder already holds something.
    """
    if not hasattr(classifier, "support_"):
        raise InputError("the classifier is not fitted yet; call fit before save.")
    check_empty(folder)
    text = json.dumps(_content(classifier), indent=1) + "\n"
    if len(text) > MAX_JSON_BYTES:
        raise InputError(
            f"the classes and settings take {len(text):,} bytes; at most {MAX_JSON_BYTES:,} can be read back. Give "
            "shorter labels."
        )
    tensors = {"support": torch.from_numpy(classifier.support_), "labels": torch.from_numpy(classifier.labels_)}
    folder = folder.resolve()
    make_folder(folder.parent)
    beside = folder.parent / f".{folder.name}-{uuid.uuid4().hex[:8]}.part"
    try:
        beside.mkdir()
    except OSError as error:
        raise InputError(f"cannot write into {folder.parent} ({error.strerror}); choose another place.") from error
    try:
        save_encoder(classifier.encoder_, beside / ENCODER, classifier._card)
        write_tensors(beside / SUPPORT, tensors)
        write_beside(beside / SETTINGS, text.encode())
        if folder.exists():
            beside.chmod(folder.stat().st_mode)
        os.replace(beside, folder)  # takes the place of an empty folder
    except OSError as error:
        raise InputError(f"cannot write {folder} ({error.strerror}); nothing was left there.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _content(classifier: FewShotClassifier) -> dict[str, Any]:
    """Content of ``classifier.json``, plain values all of it."""
    classes = classifier.classes_
    kind = classes.dtype.kind
    if kind not in _KINDS or (kind == "O" and not all(isinstance(label, str) for label in classes)):
        raise InputError(f"labels of type {classes.dtype} cannot be saved; use text, numbers or booleans.")
    values = classes.tolist()
    if kind in "UO":
        try:
            "".join(values).encode()
        except UnicodeEncodeError as error:
            raise InputError("a label is no text in Unicode (a file name, perhaps); give it another name.") from error
    if kind == "u" and values[-1] >= 2**63:  # JSON's readers take no more for an integer
        values = [str(value) for value in values]
    wrong = classifier.left_out_error_
    settings = {key: value for key, value in classifier.get_params().items() if key not in ("encoder", "device")}
    return {
        "format": _FORMAT,
        "settings": {key: _plain(value, key) for key, value in settings.items()},
        "classes": {
            "kind": _KINDS[kind],
            "dtype": "object" if kind == "O" else classes.dtype.name if kind in "biuf" else "str",
            "values": values,
        },
        "scale": asdict(getattr(classifier, "scale_", Scale())),
        "calibration": classifier.calibration_.to_dict(),
        "prior": classifier._prior.to_dict() if classifier._prior else None,
        "temperature": float(classifier.temperature_),
        "left_out_error": None if math.isnan(wrong) else wrong,
        "n_features_in": getattr(classifier, "n_features_in_", None),
        "picture_shape": getattr(classifier, "_like", None),
    }


def _plain(value: Any, name: str) -> Any:
    """A setting as JSON has it; numpy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the setting {name}={value!r} is no text in Unicode; choose another.") from error
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise InputError(f"the setting {name}={value!r} is none that JSON has; use text, numbers or booleans.")


def load_classifier(kind: type[FewShotClassifier], folder: Path) -> FewShotClassifier:
    """See `FewShotClassifier.load`."""
    path = folder / SETTINGS
    if not path.is_file():
        raise InputError(f"{folder} holds no classifier: {SETTINGS} is missing. Give a folder that `save` wrote.")
    encoder = zoo.load_encoder(folder / ENCODER)
    tensors = read_tensors(folder / SUPPORT)
    try:
        content: dict[str, Any] = read_json(path, "the settings of a classifier")
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {_FORMAT!r}")
        made = kind(str(folder / ENCODER), **_settings(content["settings"]))
        check_settings(made)
        made.scale_ = _scale(content["scale"])
        made.calibration_ = Calibration.checked(content["calibration"], "a calibration")
        made._prior = Calibration.checked(content["prior"], "a prior") if content["prior"] is not None else None
        if content["n_features_in"] is not None:
            made.n_features_in_ = _positive(content["n_features_in"])
        like = content.get("picture_shape")
        made._like = tuple(map(_positive, like)) if like is not None else None
        support, labels = tensors["support"], tensors["labels"]
        _check_support(support, labels, encoder.feature_size)
        made.classes_ = _classes(content["classes"], len(labels))
        if made.none_label is not None and is_among(made.none_label, made.classes_):
            raise ValueError(f"the none_label {made.none_label!r} among its classes")
        if int(labels.min()) < 0 or int(labels.max()) >= len(made.classes_):
            raise ValueError(f"labels outside the {len(made.classes_)} classes")
        made.encoder_, made._card = encoder, zoo.read_card(folder / ENCODER)
        made.support_, made.labels_ = support.float().numpy(), labels.long().numpy()
        return _calibrated(made, content)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(f"{folder} is not a saved classifier that can be used ({error}).") from error


def _settings(stored: dict[str, Any]) -> dict[str, Any]:
    if isinstance(stored.get("value_range"), list):
        stored["value_range"] = tuple(stored["value_range"])
    return stored


def _scale(stored: Any) -> Scale:
    check_types(Scale, stored, "scale.")
    made = Scale(**stored)
    if not all(map(in_range, (made.low, made.high))) or made.low > made.high or not 0 < made.eight <= 255:
        raise ValueError(f"a scale from {made.low} to {made.high}")
    return made


def _positive(value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**31:
        raise ValueError(f"{value!r} where a positive number is expected")
    return value


def _check_support(support: Tensor, labels: Tensor, length: int) -> None:
    if support.ndim != 2 or support.shape[1] != length or labels.shape != support.shape[:1]:
        raise ValueError(f"features {list(support.shape)} and labels {list(labels.shape)} do not fit the encoder")
    if not support.dtype.is_floating_point or labels.dtype not in (torch.int64, torch.int32) or not len(labels):
        raise ValueError(f"{len(labels)} features of {support.dtype} with labels of {labels.dtype}")
    if not bool(torch.isfinite(support.float()).all()):
        raise ValueError("features that are not finite")


def _classes(stored: Any, pictures: int) -> np.ndarray:
    """The labels, whose memory is that of their file, not of the longest times their number."""
    kind, values = stored["kind"], stored["values"]
    dtype = stored.get("dtype", kind)
    if kind not in _TYPES or not isinstance(values, list) or not 0 < len(values) <= pictures + _AHEAD:
        raise ValueError(f"labels of kind {str(kind)[:40]!r}")
    if kind == "uint64" and all(isinstance(value, str) and len(value) <= 20 for value in values):
        values = [int(value) for value in values]
    if not all(isinstance(value, _TYPES[kind]) and (kind == "bool") == isinstance(value, bool) for value in values):
        raise ValueError(f"labels that are not of kind {kind}")
    if any(not before < after for before, after in pairwise(values)):
        raise ValueError("labels that are not in order, or there twice")
    if kind == "str":
        wide = 4 * len(values) * max(map(len, values)) > _WIDE
        return np.array(values, dtype=object if dtype == "object" or wide else str)
    if np.dtype(dtype).kind != np.dtype(kind).kind:
        raise ValueError(f"labels of type {str(dtype)[:40]!r}")
    made = np.array(values, dtype=dtype)
    if kind == "float64" and not np.isfinite(made).all():
        raise ValueError("labels that are not finite")
    return made


def _calibrated(made: FewShotClassifier, content: dict[str, Any]) -> FewShotClassifier:
    """With the temperature and the error as saved; files of the first versions have none, and it is found again."""
    if "temperature" in content:
        wrong = content["left_out_error"]
        if wrong is not None and not (type(wrong) in (int, float) and 0 <= wrong <= 1):
            raise ValueError(f"a left_out_error of {wrong!r}")
        made.temperature_ = Calibration.checked({"temperature": content["temperature"], "spread": 1.0}, "").temperature
        made.left_out_error_ = math.nan if wrong is None else float(wrong)
        return made
    count = len(made.labels_)
    if count * max(len(made.classes_), count if made.head == "ridge" else 0) > _RECALCULATED:
        raise ValueError("no temperature, and too many pictures to find it again: fit and save it anew")
    return made._calibrate()
