"""Docstrings: the examples in them run, and each begins with a noun or a verb, in one line."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import episodes
import metagvae

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [
    name
    for package in (episodes, metagvae)
    for name in [package.__name__]
    + [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.") if m.ispkg]
]
FILES = [path for package in ("episodes", "metagvae") for path in sorted((ROOT / package).rglob("*.py"))]
WITH_EXAMPLES = [path for path in FILES if ">>> " in path.read_text(encoding="utf-8")]
# handed to a subclass, or read in a report; made by no user
MADE_INSIDE = {"Deformation", "GuidanceInputs", "Views", "Context", "Report", "Row", "Sizes"}


def public_classes() -> Iterator[tuple[str, type]]:
    """Each class that some package's ``__init__`` exports."""
    for name in PACKAGES:
        package = importlib.import_module(name)
        for exported in getattr(package, "__all__", []):
            value = getattr(package, exported)
            if inspect.isclass(value):
                yield exported, value


def documented() -> Iterator[tuple[str, str]]:
    """Where each public docstring stands, and the docstring: of classes, functions and methods."""
    for path in FILES:
        nodes: list[tuple[str, ast.AST]] = [(path.name, ast.parse(path.read_text(encoding="utf-8")))]
        while nodes:
            place, node = nodes.pop()
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
                    text = ast.get_docstring(child)
                    if text:
                        yield f"{place}::{child.name}", text
                    if isinstance(child, ast.ClassDef):
                        nodes.append((f"{place}::{child.name}", child))


def test_each_public_class_has_an_example() -> None:
    found = dict(public_classes())
    assert len(found) > 25
    assert set(found) >= MADE_INSIDE
    without = {name for name, value in found.items() if ">>> " not in (value.__doc__ or "")}
    assert without <= MADE_INSIDE, f"an example is missing in: {', '.join(sorted(without - MADE_INSIDE))}"


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


def test_first_lines_begin_with_a_noun_or_a_verb_and_are_one_sentence_or_less() -> None:
    found = list(documented())
    assert len(found) > 300
    longer = [place for place, text in found if len(text.splitlines()) > 1 and text.splitlines()[1].strip()]
    assert not longer, f"the first line runs on in: {', '.join(longer[:20])}"


def test_no_docstring_begins_with_what() -> None:
    """Those of modules and of helpers too."""
    named = re.compile(r'^ *"""What ', re.MULTILINE)
    folders = ("episodes", "metagvae", "experiments", "tools", "tests", "scripts", "examples")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    what = [str(path.relative_to(ROOT)) for path in files if named.search(path.read_text(encoding="utf-8"))]
    assert not what, f"'What ...' begins a docstring of: {', '.join(what[:20])}"
