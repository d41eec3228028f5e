"""JSON and YAML that a stranger may have written, as plain containers, within bounds.

Bounded are the bytes, the depth and the size of a number; aliases are refused, since a page of them can stand for
more values than any memory holds. A key that is there twice is refused, since only one of its values would be read.
What comes back is a tree no larger than its file.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from episodes import InputError

MAX_JSON_BYTES = 2**20
MAX_YAML_BYTES = 2**16  # PyYAML needs a second for this much
MAX_DEPTH = 32


class _Loader(yaml.SafeLoader):
    """YAML's plain types, no aliases, no key twice in one mapping, no deeper than `MAX_DEPTH`."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name); write the value out")
        if self.depth >= MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Puts in what merge keys (<<) bring, once the mapping's own keys, which may replace that, are found unlike."""
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                continue  # PyYAML refuses it and says where
            if key in lines:
                where = f"in lines {lines[key]} and {line}"
                raise yaml.YAMLError(f"the key {repr(key)[:100]} is there twice, {where}; keep one")
            lines[key] = line
        super().flatten_mapping(node)


def read_text(path: Path, most: int, what: str) -> str:
    """A regular file of UTF-8 text.

    Raises:
        InputError: if it is missing, no regular file, larger than ``most`` bytes, or not UTF-8.
    """
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):  # reading a pipe would wait for ever
            raise InputError(f"{path} is not a regular file; give {what}.")
        if info.st_size > most:
            raise InputError(f"{path} has {info.st_size:,} bytes; {what} has at most {most:,}.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read ({error}); give {what}.") from error


def yaml_text(content: Any) -> str:
    """Plain containers as YAML, in the order of their keys.

    Raises:
        InputError: if a text is none in UTF-8, such as the path of a file whose name is not; it could not be read back.
    """
    try:
        _checked(content)
    except UnicodeEncodeError as error:
        raise InputError(
            f"{error.object[:200]!r} cannot be kept in a config: it is not UTF-8, and could not be read back. Rename "
            "that file or folder, or reach it by a link whose name is UTF-8."
        ) from error
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _checked(content: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(content, dict):
        for key, value in content.items():
            _checked(key, depth + 1)
            _checked(value, depth + 1)
    elif isinstance(content, list):
        for value in content:
            _checked(value, depth + 1)
    elif isinstance(content, int) and content.bit_length() > 63:
        raise ValueError(f"it has a number of {content.bit_length():,} bits; at most 63 are read")
    elif isinstance(content, str):
        content.encode()  # half of a surrogate pair cannot be written or shown
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises `ValueError` if a key is there twice."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {repr(key)[:100]} is there twice in one object; keep one")
        content[key] = value
    return content


def parse_json(text: str) -> Any:
    """Plain containers from JSON text; raises `ValueError`."""
    try:
        return _checked(json.loads(text, object_pairs_hook=_object))
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from None


def read_json(path: Path, what: str, most: int = MAX_JSON_BYTES) -> Any:
    """Plain containers from a JSON file.

    Raises:
        InputError: if it cannot be read, is too large, too deep, has a key twice, or is no JSON.
    """
    text = read_text(path, most, what)
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(f"{path} is not readable JSON ({error}); give {what}.") from error


def parse_yaml(text: str) -> Any:
    """Plain containers from YAML text of at most `MAX_YAML_BYTES`; raises PyYAML's many kinds of error."""
    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"it has {len(text):,} characters; YAML of at most {MAX_YAML_BYTES:,} is read")
    return _checked(yaml.load(text, _Loader))


def read_yaml(path: Path, what: str) -> Any:
    """Plain containers from a YAML or JSON file.

    Raises:
        InputError: if it cannot be read, is too large, too deep, has aliases or a key twice, or is neither.
    """
    text = read_text(path, MAX_JSON_BYTES, what)
    if text.lstrip().startswith("{"):
        try:
            return parse_json(text)
        except ValueError:
            pass  # YAML in braces, perhaps
    if len(text) > MAX_YAML_BYTES:
        raise InputError(f"{path} has {len(text):,} characters; YAML of at most {MAX_YAML_BYTES:,} is read.")
    try:
        return parse_yaml(text)
    except Exception as error:  # PyYAML's constructors raise many kinds for malformed values
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path} is not readable YAML or JSON ({type(error).__name__}: {reason}).") from error
