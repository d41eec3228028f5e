"""The documentation site: builds without a warning, fetches nothing, names what there is."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[docs]'")
pytest.importorskip("material", reason="mkdocs-material is not installed: pip install -e '.[docs]'")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install -e '.[docs]'")

from metagvae.cli.commands import COMMANDS, CONFIGURED, GROUPS

ROOT = Path(__file__).resolve().parent.parent
MODULES = re.findall(
    r"^::: ((?!metagvae\.cli)[\w.]+)$",
    "\n".join(page.read_text() for page in sorted((ROOT / "docs" / "api").glob("*.md"))),
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


def test_builds_strictly_with_every_page_in_the_nav(site: Path) -> None:
    """`--strict` makes of a dead link, a missing anchor or a page left out of the nav an error."""
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= {page.relative_to(site) for page in site.rglob("*.html")}


def test_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\bsrc=\"?(https?:[^\s\">]+)", text)
        loaded += [
            link for link in re.findall(r"<link[^>]*>", text) if "http" in link and not re.search("canonical", link)
        ]
        assert not loaded, (page.name, loaded)


def test_formulas_are_markdown(site: Path) -> None:
    """The colons that begin a block in reStructuredText would stand in the page as they are."""
    assert [page.name for page in site.rglob("*.html") if "::</p>" in page.read_text()] == []


def test_every_command_is_on_its_page() -> None:
    page = (ROOT / "docs" / "api" / "commands.md").read_text()
    names = [*CONFIGURED, *COMMANDS]
    names += [f"{group} {action}" for group, (_, actions) in GROUPS.items() for action in actions]
    assert [name for name in names if f"## metagvae {name}\n" not in page] == []


def signatures(module: str) -> list[tuple[str, str, set[str]]]:
    """Name, docstring and parameters of every class and function that ``module`` defines and shows."""
    loaded, found = importlib.import_module(module), []
    for name, value in vars(loaded).items():
        if getattr(value, "__module__", None) != module or name.startswith("_"):
            continue
        if inspect.isclass(value) and issubclass(value, Exception):
            continue
        members = [value]
        if inspect.isclass(value):
            members += [m for n, m in vars(value).items() if inspect.isfunction(m) and not n.startswith("_")]
        for member in members:
            if callable(member) and member.__doc__:
                parameters = set(inspect.signature(member).parameters)
                fields = set(getattr(member, "__annotations__", {})) if inspect.isclass(member) else set()
                found.append((f"{module}.{member.__qualname__}", inspect.getdoc(member) or "", parameters | fields))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_documented_arguments_exist(module: str) -> None:
    for name, text, parameters in signatures(module):
        section = re.search(r"^Args:\n((?: {4}.*\n?|\n)+)", text, re.MULTILINE)
        for names in re.findall(r"^ {4}(\*{0,2}\w[\w*, ]*):", section[1] if section else "", re.MULTILINE):
            unknown = {word.strip(" *") for word in names.split(",")} - parameters
            assert not unknown, f"{name} documents {unknown}, and has {parameters}"


def test_there_are_modules_to_check() -> None:
    assert len(MODULES) > 30
    assert sum(bool(signatures(module)) for module in MODULES) > 30
