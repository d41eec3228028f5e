"""Plain files: a key that is there twice is refused; merge keys bring what the mapping has not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from episodes import InputError
from episodes.untrusted.plain_files import parse_json, parse_yaml, read_json, read_yaml, yaml_text


@pytest.mark.parametrize(
    "text",
    ["a: 1\na: 2\n", "b:\n- {a: 1, c: 2, a: 2}\n", "{<<: {a: 1, a: 2}}", "1: x\n1.0: y\n"],
)
def test_a_key_that_yaml_has_twice_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError, match=r"is there twice, in lines \d and \d; keep one"):
        parse_yaml(text)
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml is not readable .* is there twice"):
        read_yaml(path, "a config")


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '[{"b": {"a": 1, "c": 1, "a": 1}}]'])
def test_a_key_that_json_has_twice_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the key 'a' is there twice in one object; keep one"):
        parse_json(text)
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.json is not readable JSON .*the key 'a' is there twice"):
        read_json(path, "a card")
    with pytest.raises(InputError, match="the key 'a' is there twice, in lines 1 and 1"):
        read_yaml(path, "a config")


def test_merge_keys_bring_what_the_mapping_has_not() -> None:
    assert parse_yaml("x: {<<: {a: 1, b: 2}, b: 3}") == {"x": {"a": 1, "b": 3}}
    assert parse_yaml("x: {b: 3, <<: [{a: 1}, {a: 5, c: 6}]}") == {"x": {"a": 1, "b": 3, "c": 6}}


def test_one_key_in_several_mappings_is_read() -> None:
    content = [{"a": 1}, {"a": {"a": None, "b": "\u00e4"}}]
    assert parse_yaml(yaml_text(content)) == content
    assert parse_json('[{"a": 1}, {"a": {"a": null, "b": "\u00e4"}}]') == content
