"""Class labels, whose type never changes and no two of which are ever merged."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d
from torch import Tensor

from episodes import InputError

_FAMILIES = {"b": "booleans", "i": "integers", "u": "integers", "f": "real numbers", "U": "text", "T": "text"}


def _family(label: Any) -> str:
    if isinstance(label, bool | np.bool_):
        return "booleans"
    if isinstance(label, numbers.Integral):
        return "integers"
    if isinstance(label, numbers.Real):
        return "real numbers"
    return "text" if isinstance(label, str) else f"of type {type(label).__name__}"


def families(labels: Any) -> list[str]:
    """The kinds of labels in a sequence, in the words of the errors here."""
    kind = getattr(getattr(labels, "dtype", None), "kind", "O")
    return [_FAMILIES[kind]] if kind in _FAMILIES else sorted({_family(label) for label in labels})


def as_labels(y: Any) -> np.ndarray:
    """Labels ``[n]`` of one type, as given.

    Raises:
        InputError: if they are of several types, or integers that no type of 64 bits holds together; numpy would
            turn them into text, or into real numbers that are equal where the labels differ. If a text holds a
            zero byte.
    """
    if y is None:
        raise InputError("requires y to be passed, but the target y is None.")
    if isinstance(y, Tensor):
        y = y.detach().cpu().numpy()
    if isinstance(y, list | tuple):
        y = [label.item() if isinstance(label, Tensor | np.generic) and label.ndim == 0 else label for label in y]
    of_objects = isinstance(y, list | tuple) or getattr(getattr(y, "dtype", None), "kind", None) == "O"
    if of_objects and np.ndim(np.asarray(y, dtype=object)) == 1 and len(y):
        found = families(list(y))
        if len(found) > 1:
            raise InputError(f"labels must be of one type; received {' and '.join(found)}.")
        if found[0] in ("integers", "booleans", "real numbers"):
            made = np.array(list(y))
            if found[0] == "integers" and made.dtype.kind not in "iu":
                raise InputError("these integer labels do not fit into 64 bits together; give them as text.")
            y = made
        elif found[0] == "text" and any("\0" in str(label) for label in y):
            raise InputError("labels must not hold a zero byte, which numpy drops at the end of a text; leave it out.")
    labels: np.ndarray = column_or_1d(y, warn=True)
    check_classification_targets(labels)
    return labels


def union(known: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The sorted labels of both; the type stays that of ``known``, or becomes a wider one of its kind.

    Raises:
        InputError: if the two are of different kinds.
    """
    if not len(new):
        return known
    before, after = families(known), families(new)
    if before != after:
        raise InputError(
            f"the classes known so far are {' and '.join(before)}, such as {known[0]!r}; the labels added are "
            f"{' and '.join(after)}, such as {new[0]!r}. Give labels of one type."
        )
    if known.dtype.kind not in "iu":
        return np.union1d(known, new)
    values = sorted({*known.tolist(), *new.tolist()})
    for kind in (known.dtype, np.result_type(known.dtype, new.dtype), np.dtype(np.int64), np.dtype(np.uint64)):
        if kind.kind in "iu" and np.iinfo(kind).min <= values[0] and values[-1] <= np.iinfo(kind).max:
            return np.array(values, dtype=kind)
    raise InputError(f"no integer type holds both {values[0]} and {values[-1]}; give these labels as text.")


def positions(classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int64 ``[n]``: where each label stands among the sorted classes."""
    return np.searchsorted(classes, labels.astype(classes.dtype) if classes.dtype.kind in "iu" else labels)


def with_none(labels: np.ndarray, refused: np.ndarray, none_label: Any) -> np.ndarray:
    """The labels with ``none_label`` where ``refused``; an array of objects if one of numpy's types cannot hold both.

    The type is the same whether any is refused or not.
    """
    none = np.asarray(none_label)
    kinds = labels.dtype.kind, none.dtype.kind
    both = np.result_type(labels.dtype, none.dtype) if kinds[0] not in "OT" and kinds[1] != "O" else np.dtype(object)
    exact = kinds[0] == kinds[1] and kinds[0] in "bUf"
    exact |= kinds[0] in "iu" and kinds[1] in "iu" and both.kind in "iu"
    said = labels.astype(both if exact else object)
    said[refused] = none_label
    return said


def is_among(label: Any, classes: np.ndarray) -> bool:
    """Whether a label equals one of the classes, as True does 1: answers could not tell them apart."""
    return any(label == known for known in classes.tolist())


def accuracy(said: np.ndarray, y: Any, none_label: Any, weights: Any = None) -> float:
    """The share of answers that equal the true labels, where these are of any types.

    Raises:
        InputError: if there are not as many, or none of the true labels has the answers' type.
    """
    truth = y.tolist() if isinstance(y, Tensor | np.ndarray) else list(y)
    truth = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in truth]
    if len(truth) != len(said):
        raise InputError(f"{len(said)} pictures and {len(truth)} labels: inconsistent numbers of samples.")
    texts = [
        {_family(label) == "text" for label in labels if none_label is None or not _same(label, none_label)}
        for labels in (said.tolist(), truth)
    ]
    if all(texts) and not texts[0] & texts[1]:
        raise InputError(
            f"the answers are {' and '.join(families(said.tolist()))}, the true labels "
            f"{' and '.join(families(truth))}; give labels of the type fitted on."
        )
    right = [_same(a, b) for a, b in zip(said.tolist(), truth, strict=True)]
    return float(np.average(np.array(right, dtype=float), weights=weights))


def _same(a: Any, b: Any) -> bool:
    """Whether two labels are equal, NaN as a ``none_label`` among them."""
    return bool(a == b) or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))
