"""The project's files agree: one version, changelog and citation, typed packages, a workflow that runs the checks."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import metagvae

ROOT = Path(__file__).resolve().parent.parent


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def settings() -> dict[str, object]:
    """The literal arguments of setup.py's call."""
    calls = (node for node in ast.walk(ast.parse(text("setup.py"))) if isinstance(node, ast.Call))
    call = next(node for node in calls if getattr(node.func, "id", "") == "setup")
    found = {}
    for word in call.keywords:
        try:
            found[str(word.arg)] = ast.literal_eval(word.value)
        except ValueError:  # long_description and packages are calls
            continue
    return found


def test_setup_changelog_and_citation_name_one_version() -> None:
    heading = re.search(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", text("CHANGELOG.md"), re.M)
    assert heading, "the changelog's newest heading needs a version and a date"
    citation = yaml.safe_load(text("CITATION.cff"))
    assert settings()["version"] == heading[1] == citation["version"]
    assert heading[2] == citation["date-released"]
    for module in ("metagvae", "episodes"):
        assert settings()["version"] not in text(f"{module}/__init__.py"), "the version stands in setup.py alone"


def test_version_is_the_installed_packages() -> None:
    assert metagvae.__version__ == importlib.metadata.version("metagvae")


def test_a_source_tree_that_was_never_installed_has_a_version_too() -> None:
    program = (
        "import importlib.metadata as m\n"
        "def version(name): raise m.PackageNotFoundError(name)\n"
        "m.version = version\n"
        "import metagvae\n"
        "print(metagvae.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0+source"


@pytest.mark.parametrize("package", ["metagvae", "episodes"])
def test_both_packages_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
    files = settings()["package_data"]
    assert isinstance(files, dict)
    assert "py.typed" in files[package]


def test_the_workflow_runs_the_same_check_on_the_oldest_and_the_newest_python() -> None:
    job = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]["check"]
    assert any(step.get("run") == ".ci/run" for step in job["steps"])
    classifiers = settings()["classifiers"]
    assert isinstance(classifiers, list)
    minors = [int(match[1]) for line in classifiers if (match := re.search(r":: 3\.(\d+)$", line))]
    assert job["strategy"]["matrix"]["python"] == [f"3.{min(minors)}", f"3.{max(minors)}"]
    assert settings()["python_requires"] == f">=3.{min(minors)}"


def test_hooks_before_a_commit_download_nothing() -> None:
    repositories = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    hooks = [hook for repository in repositories for hook in repository["hooks"]]
    assert {repository["repo"] for repository in repositories} == {"local"}
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in hooks)
    assert {"ruff", "ruff-format", "mypy"} <= {hook["id"] for hook in hooks}


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    named = re.findall(
        r"\]\((?!http)([\w./-]+)\)|`((?:tests|docs|examples|scripts|tools|experiments)/[\w./-]+)`", text(page)
    )
    for first, second in named:
        assert (ROOT / (first or second)).exists(), f"{page} names {first or second}"
