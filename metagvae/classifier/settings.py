"""The settings of a `FewShotClassifier`, checked before anything is done with them."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from episodes import InputError

HEADS = ("prototype", "ridge")


def check_settings(classifier: Any) -> None:
    """Raises `InputError` if a setting cannot be used; the encoder and the device say so themselves."""
    if classifier.head not in HEADS:
        raise InputError(f"head must be one of {', '.join(HEADS)}; received {classifier.head!r}.")
    if not _is_number(classifier.penalty) or not classifier.penalty > 0:
        raise InputError(f"penalty must be positive; received {classifier.penalty!r}.")
    if not isinstance(classifier.invert, bool | np.bool_) and classifier.invert != "auto":
        raise InputError(f"invert must be 'auto', True or False; received {classifier.invert!r}.")
    threshold = classifier.novelty_threshold
    if not isinstance(threshold, Real) or math.isnan(threshold):
        raise InputError(f"novelty_threshold must be a number; received {threshold!r}.")
    if classifier.none_label is not None and not isinstance(classifier.none_label, str | Real | np.bool_):
        raise InputError(f"none_label must be text, a number or a boolean; received {classifier.none_label!r}.")
    ends = classifier.value_range
    if ends is not None and not (
        isinstance(ends, tuple | list | np.ndarray)
        and len(ends) == 2
        and all(_is_number(end) and in_range(end) for end in ends)
        and ends[0] < ends[1]
    ):
        raise InputError(f"value_range must be the numbers of black and of white, (0, 255) say; received {ends!r}.")


def in_range(value: float) -> bool:
    """Whether float32 holds a number, and the square of its like, with room to spare."""
    return abs(value) < 1e18


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
