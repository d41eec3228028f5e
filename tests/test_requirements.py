"""Packages that are installed: pinned, hashed, complete for every Python, and nothing beside it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
RENEW = "renew requirements.txt by the command in requirements.in"
PYTHONS = ("3.10.13", "3.11.7", "3.12.1", "3.13.0")


def entries() -> dict[Requirement, list[str]]:
    """The hashes of each pinned version in requirements.txt."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    found: dict[Requirement, list[str]] = {}
    for entry in re.split(r"\n(?=\S)", re.sub(r"\\\n", " ", text.strip())):
        line, *hashes = entry.split(" --hash=")
        found[Requirement(line.strip())] = [value.strip() for value in hashes]
    return found


def asked(extras: set[str]) -> list[Requirement]:
    """Packages that setup.py asks for, those named in some of its extras too, and what requirements.in adds."""
    call = next(
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    )
    values = {word.arg: word.value for word in call.keywords}
    table = ast.literal_eval(values["extras_require"])
    names = [*ast.literal_eval(values["install_requires"]), *(name for extra in extras for name in table[extra])]
    lines = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    return [Requirement(name) for name in [*names, *(line for line in lines if line[:1] not in ("#", "."))]]


def extras() -> set[str]:
    """The extras that requirements.in names."""
    found = re.search(r"^\.\[(.*)\]$", (ROOT / "requirements.in").read_text(encoding="utf-8"), re.M)
    assert found
    return set(found[1].split(","))


def test_every_file_is_pinned_by_hash_and_no_host_is_named() -> None:
    found = entries()
    assert len(found) > 100
    for requirement, hashes in found.items():
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), requirement
    text = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements.in").read_text()
    assert not re.search(r"://|index-url|find-links|/(home|tmp|opt|etc)/", text)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_pins_meet_what_is_asked_for(python: str) -> None:
    place = {**default_environment(), "python_version": python.rpartition(".")[0], "python_full_version": python}
    pinned: dict[str, str] = {}
    for requirement in entries():
        if requirement.marker is None or requirement.marker.evaluate(place):
            name = canonicalize_name(requirement.name)
            assert name not in pinned, f"{name} is pinned twice for Python {python}; {RENEW}"
            pinned[name] = str(requirement.specifier).removeprefix("==")
    for requirement in asked(extras()):
        if requirement.marker is None or requirement.marker.evaluate({**place, "extra": ""}):
            name = canonicalize_name(requirement.name)
            assert name in pinned, f"{name} is asked for and not pinned; {RENEW}"
            assert requirement.specifier.contains(pinned[name]), f"{requirement}, pinned {pinned[name]}; {RENEW}"


def test_all_that_is_installed_is_checked_by_hash() -> None:
    script = (ROOT / "scripts" / "install.sh").read_text(encoding="utf-8")
    locked = next(line for line in script.splitlines() if line.startswith("locked()"))
    assert all(option in locked for option in ("--require-hashes", "--no-deps", "--no-build-isolation"))
    unlocked, rest = re.split(r'\nif \[ -n "\$unlocked" \]; then\n', script)[1].split("\nelse\n", 1)
    assert "UNLOCKED" in script
    assert "pip install" in unlocked
    installs = [line.strip() for line in rest.splitlines() if re.match(r"\s*pip install", line)]
    assert installs == ["pip install --quiet --no-deps --no-build-isolation -e ."]
    assert re.search(r"learn2learn==0\.2\.0 --hash=sha256:[0-9a-f]{64}'", rest)


def test_the_two_commands_and_ci_install_by_the_script_alone() -> None:
    for name in ("scripts/quickstart.sh", "scripts/test.sh", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "./scripts/install.sh" in text, name
        assert "pip install" not in text, name
