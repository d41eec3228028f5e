"""Whether plain values, out of a file or a call, are of the types that a signature names."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from episodes.errors import InputError

_PLAIN = (bool, int, float, str, type(None))


def fits(value: Any, hint: Any) -> bool:
    """Whether ``value`` is of the type ``hint``; hints other than plain ones and their containers fit anything."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, choice) for choice in inside)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in _PLAIN:
        return isinstance(value, hint)
    if origin in (list, collections.abc.Sequence):
        if not isinstance(value, list | tuple):
            return False
        # of plain items one of each type tells as much: a card lists thousands of names
        some = {type(item): item for item in value}.values() if inside[0] in _PLAIN else value
        return all(fits(item, inside[0]) for item in some)
    if origin in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping) and all(fits(k, inside[0]) and fits(v, inside[1]) for k, v in value.items())
    return True


def check_types(maker: Callable[..., Any], values: Mapping[str, Any], where: str) -> None:
    """Checks values that are to become arguments of a class or function.

    Raises:
        InputError: naming the first value that is not of the type its argument is declared with.
    """
    hints = get_type_hints(maker)
    if isinstance(maker, type):
        hints |= get_type_hints(maker.__init__)  # type: ignore[misc]
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            wanted = getattr(hints[name], "__name__", "") if not get_args(hints[name]) else str(hints[name])
            raise InputError(f"{where}{name} must be {wanted}; received {repr(value)[:100]}.")
