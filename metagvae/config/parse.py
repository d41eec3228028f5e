"""Configs read back from plain containers and checked: they may be a stranger's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from episodes import InputError
from episodes.untrusted.typed import check_types

S = TypeVar("S")


def from_dict(kind: type[S], content: Mapping[str, Any]) -> S:
    """A config from the plain containers that `to_dict` gives.

    Raises:
        InputError: if it has an unknown setting or one of another type or range.
    """
    return _built(kind, content, "")


def section(kind: type[S], config: Mapping[str, Any], name: str, where: str | Path) -> S:
    """The section ``name`` of a run's config, which may be a stranger's.

    Raises:
        InputError: if it is missing, or has an unknown setting or one of another type.
    """
    content = config.get(name)
    allowed = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(content, Mapping) or not all(key in allowed for key in content):
        raise InputError(
            f"the config of the run {where} needs a section '{name}' with settings among {', '.join(allowed)}; "
            f"received {repr(content)[:200]}."
        )
    return _built(kind, content, f"{name}.")


def _built(kind: type[S], content: Mapping[str, Any], where: str) -> S:
    """A dataclass, and those inside it, from plain containers."""
    hints, values = get_type_hints(kind), dict(content)
    check_types(kind, values, where)
    for name, value in values.items():
        inner: Any = next((choice for choice in (hints[name], *get_args(hints[name])) if is_dataclass(choice)), None)
        if inner is not None and value is not None:
            known = [f.name for f in fields(inner)]
            if not isinstance(value, Mapping) or not set(value) <= set(known):
                raise InputError(
                    f"{where}{name} needs settings among {', '.join(known)}; received {repr(value)[:200]}."
                )
            values[name] = _built(inner, value, f"{where}{name}.")
    return kind(**values)
