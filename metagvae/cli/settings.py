"""Settings of a command's config class on its line: files of --config first, whole sections checked."""

from __future__ import annotations

import math
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from episodes.errors import InputError
from episodes.paths import expanded
from episodes.untrusted.plain_files import parse_yaml, read_yaml


def in_order(arguments: list[str], kind: type) -> list[str]:
    """The options of a command with its config files ahead, so that the others win wherever they stand.

    What the files and the options of whole sections hold is read within bounds and checked against ``kind``. The
    parser would take a text in a section's place for the name of a further file, or of a class to be imported, and a
    config may be a stranger's.

    Args:
        arguments: the words after the command's name.
        kind: the config class.

    Raises:
        InputError: if a file cannot be read, a section of it holds anything but its own settings, or a setting has
            no value or two.
    """
    sections, configs, others = dict(_sections(kind)), [], []
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        name = option[2:] if option.startswith("--") else ""
        if name != "config" and name not in sections:
            others.append(word)
            continue
        value = value if equals else next(words, "")
        if name == "config":
            _check(kind, _file(value), f"{value}: ")
            configs += [option, value]
        else:
            kind_of, may_be_null = sections[name]
            content = _text(value)
            if content is not None or not may_be_null:
                _check_section(kind_of, content, name, "")
            others += [option, value]
    return [*configs, *others]


def _file(name: str) -> Any:
    path = expanded(name)
    if not os.path.lexists(path):
        raise InputError(f"--config {name}: there is no such file; give a YAML file of the command's settings.")
    return read_yaml(path, "a config")


def _text(value: str) -> Any:
    try:
        return parse_yaml(value)
    except Exception as error:  # PyYAML's constructors raise many kinds
        raise InputError(f"{value[:100]!r} is not readable YAML ({' '.join(str(error).split())[:200]}).") from error


def _section(hint: Any) -> type | None:
    """The dataclass that a setting of this type holds, if it holds one."""
    return next((choice for choice in (hint, *get_args(hint)) if is_dataclass(choice)), None)  # type: ignore[return-value]


def _takes_null(hint: Any) -> bool:
    """Whether a setting of this type may be null."""
    return hint is Any or NoneType in get_args(hint)


def _sections(kind: type, above: str = "") -> Iterator[tuple[str, tuple[type, bool]]]:
    """Every section of a config class by its dotted name, and whether it may be null."""
    for name, hint in get_type_hints(kind).items():
        inner = _section(hint)
        if inner is not None:
            yield f"{above}{name}", (inner, _takes_null(hint))
            yield from _sections(inner, f"{above}{name}.")


def _check(kind: type, content: Any, where: str) -> None:
    """Raises `InputError` unless ``content`` maps settings of ``kind``, and each section settings of its own."""
    hints = get_type_hints(kind)
    if not isinstance(content, Mapping):
        raise InputError(f"{where}it must hold settings among {', '.join(hints)}; received {repr(content)[:100]}.")
    _check_once(list(map(str, content)), where)
    for key, value in content.items():
        name, _, rest = str(key).partition(".")
        inner = _section(hints.get(name))
        if name not in hints or (rest and inner is None):
            raise InputError(f"{where}there is no setting {str(key)[:100]!r}; allowed: {', '.join(hints)}.")
        if value is None and not rest:
            _check_null(hints[name], name, where)
        elif inner is not None:
            _check_section(inner, {rest: value} if rest else value, name, where)


def _check_once(keys: list[str], where: str) -> None:
    """Raises `InputError` if a key such as ``optim.steps`` stands beside its section, as file order would decide."""
    for key in keys:
        above = next((other for other in keys if key.startswith(f"{other}.")), None)
        if above is not None:
            raise InputError(
                f"{where}the setting {key[:100]!r} stands beside its section '{above}', and only one of them would "
                f"count; write it inside '{above}'."
            )


def _check_null(hint: Any, name: str, where: str) -> None:
    if not _takes_null(hint):
        raise InputError(
            f"{where}the setting '{name}' has no value (null, or nothing after its colon); write one, or leave "
            f"'{name}' out for its default."
        )


def check_nulls(kind: type, settings: Any, above: str = "") -> None:
    """Raises `InputError` if a parsed setting of a config class is null whose type does not allow that."""
    for name, hint in get_type_hints(kind).items():
        value = vars(settings).get(name, MISSING)
        inner = _section(hint)
        if value is None:
            _check_null(hint, f"{above}{name}", "")
        elif inner is not None and isinstance(value, Namespace):
            check_nulls(inner, value, f"{above}{name}.")


def check_finite(settings: Any, name: str = "") -> None:
    """Raises `InputError` if a parsed setting, or a number within one, is NaN or infinite.

    No setting of a command takes infinity; ranges written as ``x < 0`` would let NaN through.
    """
    if isinstance(settings, Namespace | Mapping):
        inner = vars(settings) if isinstance(settings, Namespace) else settings
        for key, value in inner.items():
            check_finite(value, f"{name}.{key}" if name else str(key))
    elif isinstance(settings, list | tuple):
        for number, value in enumerate(settings):
            check_finite(value, f"{name}[{number}]")
    elif isinstance(settings, float) and not math.isfinite(settings):
        raise InputError(f"the setting '{name[:100]}' must be a finite number; received {settings}.")


def _check_section(kind: type, content: Any, name: str, where: str) -> None:
    if not isinstance(content, Mapping):
        raise InputError(
            f"{where}the section '{name}' must hold settings, such as {{{next(iter(get_type_hints(kind)))}: ...}}; "
            f"received {repr(content)[:100]}. No further file is read from a config: write the settings out."
        )
    _check(kind, content, f"{where}{name}: ")
