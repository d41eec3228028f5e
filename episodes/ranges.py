"""Ranges of settings."""

from __future__ import annotations

import math

from episodes.errors import InputError


def check_range(name: str, value: float, largest: float) -> None:
    """Raises `InputError` unless a setting is a number from 0 to ``largest``, which may be infinity."""
    if not 0 <= value <= largest or value == math.inf:
        allowed = "at least 0" if largest == math.inf else f"in [0, {largest}]"
        raise InputError(f"{name} must be {allowed}; received {value}.")
