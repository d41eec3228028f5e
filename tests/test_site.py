"""The documentation site: builds without a warning, fetches nothing, names what there is."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[docs]'")
pytest.importorskip("material", reason="mkdocs-material is not installed: pip install -e '.[docs]'")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install -e '.[docs]'")

from metagvae.cli.commands import COMMANDS, CONFIGURED, GROUPS

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
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


def test_search_works_from_a_disk_and_no_table_breaks_words_on_a_phone(site: Path) -> None:
    """Browsers start no worker and read no index from a file, unless the page brings both itself."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium found; apt-get install chromium")
    faults: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(offline=True, viewport={"width": 390, "height": 844}).new_page()
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto((site / "results" / "photos.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        broken = page.evaluate(WORDS_IN_TWO)
        page.click("label[for=__search].md-header__button")
        page.locator("input[name=query]").press_sequentially("conformal")  # it listens to keys
        found = page.locator(".md-search-result__link").first
        found.wait_for(timeout=60_000)
        words, address = page.inner_text(".md-search-result__list"), found.get_attribute("href")
        browser.close()
    assert broken == []
    assert "Sets of labels" in words
    assert address is not None
    assert address.startswith("file:")
    assert Path(urlparse(address).path).is_file()
    assert faults == []


# words of tables' cells that stand on two lines
WORDS_IN_TWO = """() => [...document.querySelectorAll('.md-typeset td, .md-typeset th')].flatMap((cell) => {
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), found = [], range = document.createRange();
  for (let text = walker.nextNode(); text; text = walker.nextNode())
    for (const { 0: word, index } of text.data.matchAll(/[A-Za-z0-9]+/g)) {
      range.setStart(text, index);
      range.setEnd(text, index + word.length);
      if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) found.push(word);
    }
  return found;
})"""


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
