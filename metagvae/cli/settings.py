"""Settings of a command's config class on its line: files of --config first, whole sections checked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
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
        InputError: if a file cannot be read, or a section of it holds anything but its own settings.
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
            _check_section(sections[name], _text(value), name, "")
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


def _sections(kind: type, above: str = "") -> Iterator[tuple[str, type]]:
    """Every section of a config class by its dotted name."""
    for name, hint in get_type_hints(kind).items():
        inner = _section(hint)
        if inner is not None:
            yield f"{above}{name}", inner
            yield from _sections(inner, f"{above}{name}.")


def _check(kind: type, content: Any, where: str) -> None:
    """Raises `InputError` unless ``content`` maps settings of ``kind``, and each section settings of its own."""
    hints = get_type_hints(kind)
    if not isinstance(content, Mapping):
        raise InputError(f"{where}it must hold settings among {', '.join(hints)}; received {repr(content)[:100]}.")
    for key, value in content.items():
        name, _, rest = str(key).partition(".")
        inner = _section(hints.get(name))
        if name not in hints or (rest and inner is None):
            raise InputError(f"{where}there is no setting {str(key)[:100]!r}; allowed: {', '.join(hints)}.")
        if inner is not None:
            _check_section(inner, {rest: value} if rest else value, name, where)


def _check_section(kind: type, content: Any, name: str, where: str) -> None:
    if content is None:
        return
    if not isinstance(content, Mapping):
        raise InputError(
            f"{where}the section '{name}' must hold settings, such as {{{next(iter(get_type_hints(kind)))}: ...}}; "
            f"received {repr(content)[:100]}. No further file is read from a config: write the settings out."
        )
    _check(kind, content, f"{where}{name}: ")
