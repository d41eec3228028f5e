"""Runs the tests from a fresh clone on every supported Python found, and on the oldest torch that setup.py names.

    python tools/matrix.py [--python PATH ...] [--folder KEPT] [--json experiments/results/matrix.json]

Interpreters are looked for on PATH and among pyenv's. Each gets a clone, a virtual environment of its own through
scripts/install.sh, and ./scripts/test.sh; the clone is removed afterwards, unless --folder keeps it for the next time.
The last row is the oldest Python found with the lowest torch and torchvision of setup.py. Arguments after -- go to
pytest.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ("3.10", "3.11", "3.12", "3.13")


def version_of(python: str) -> str | None:
    """``3.12.1`` of an interpreter that runs, else None."""
    code = "import sys, venv; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def interpreters(given: list[str]) -> dict[str, str]:
    """Path by supported version (``3.10``): those given, else the first found of each."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found: dict[str, str] = {}
    for wanted in SUPPORTED:
        places = given or [f"python{wanted}", *(str(p) for p in sorted(pyenv.glob(f"{wanted}.*/bin/python{wanted}")))]
        for python in places:
            version = version_of(python)
            if version and version.startswith(f"{wanted}."):
                found.setdefault(wanted, python)
    return found


def lowest(package: str) -> str:
    """The lowest version that setup.py allows of a package."""
    match = re.search(rf'"{package}>=([\d.]+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert match, f"setup.py names no lowest {package}"
    return match[1]


def cloned(clone: Path) -> None:
    """A clone of the last commit; one that is there is brought up to it, what is installed in it stays."""
    if clone.exists():
        subprocess.run(["git", "-C", str(clone), "fetch", "--quiet", str(ROOT), "HEAD"], check=True)
        subprocess.run(["git", "-C", str(clone), "reset", "--quiet", "--hard", "FETCH_HEAD"], check=True)
    else:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)


def versions(python: Path) -> dict[str, str]:
    """Of Python, torch and numpy, as an interpreter imports them; ``?`` for what it cannot."""
    names = ("python", "torch", "numpy")
    code = "import platform, torch, numpy; print(platform.python_version(), torch.__version__, numpy.__version__)"
    told = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False).stdout.split()
    return dict(zip(names, [*told, "?", "?", "?"], strict=False))


def counts(log: Path) -> dict[str, int]:
    """Tests that passed, failed, could not begin and were skipped, by pytest's last line."""
    lines = log.read_text(errors="replace").splitlines()
    last = next((line for line in reversed(lines) if re.search(r"\d+ (passed|failed|error).* in [\d.]+s", line)), "")
    found = {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", last)}
    failed = found.get("failed", 0) + found.get("error", 0) + found.get("errors", 0)
    return {"passed": found.get("passed", 0), "failed": failed, "skipped": found.get("skipped", 0)}


def run(python: str, oldest: bool, arguments: list[str], folder: Path, log: Path) -> dict[str, Any]:
    """One row: a clone under ``folder``, its installation and its tests."""
    name = f"{version_of(python)}{'-oldest' if oldest else ''}"
    clone = folder / name
    cloned(clone)
    # what this process was started with must not leak into the clone
    outside = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment = {**outside, "PYTHON": python, "UNLOCKED": "1"}  # versions that requirements.txt does not pin
    if oldest:
        pins = folder / f"{name}.txt"
        pins.write_text("".join(f"{package}=={lowest(package)}.*\n" for package in ("torch", "torchvision")))
        environment["PIP_CONSTRAINT"] = str(pins)
    with log.open("w") as out:

        def call(*command: str) -> int:
            return subprocess.run(command, cwd=clone, env=environment, stdout=out, stderr=out, check=False).returncode

        start = time.perf_counter()
        status = call("./scripts/install.sh")
        installed = time.perf_counter()
        if not status:
            status = call("./scripts/test.sh", *arguments)
        done = time.perf_counter()
    return {
        **versions(clone / ".venv" / "bin" / "python"),
        **counts(log),
        "green": "yes" if status == 0 else "no",
        "install, s": round(installed - start),
        "tests, s": round(done - installed),
        "commit": head(clone),
    }


def head(clone: Path) -> str:
    question = ["git", "-C", str(clone), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(question, capture_output=True, text=True, check=True).stdout.strip()


def add(path: Path, new: dict[str, Any]) -> None:
    """Writes a row, in the place of one of the same Python and torch if the file has it; oldest first."""
    old = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = [row for row in old if (row["python"], row["torch"]) != (new["python"], new["torch"])] + [new]
    rows.sort(key=lambda row: [[int(n) for n in re.findall(r"\d+", row[name])[:3]] for name in ("torch", "python")])
    content = {"provenance": {"command": "python tools/matrix.py", "commit": new["commit"]}, "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", nargs="+", default=[], help="interpreters to use instead of those found")
    parser.add_argument("--only", choices=["newest", "oldest"], help="only with the newest torch, or only the oldest")
    parser.add_argument("--json", type=Path, help="file to add the rows to")
    parser.add_argument("--folder", type=Path, help="keep the clones and what is installed in them here")
    parser.add_argument("--logs", type=Path, default=Path(tempfile.gettempdir()), help="folder of the full outputs")
    parser.add_argument("arguments", nargs="*", help="for pytest, after --")
    chosen = parser.parse_args()
    # ignored in a job in the background; the tests send themselves Ctrl-C
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    found = interpreters(chosen.python)
    if not found:
        sys.exit(f"no Python of {', '.join(SUPPORTED)} was found; name some with --python.")
    jobs = [] if chosen.only == "oldest" else [(python, False) for python in found.values()]
    jobs += [] if chosen.only == "newest" else [(next(iter(found.values())), True)]
    chosen.logs.mkdir(parents=True, exist_ok=True)
    green = True
    for python, oldest in jobs:
        log = chosen.logs / f"matrix-{version_of(python)}{'-oldest' if oldest else ''}.log"
        with tempfile.TemporaryDirectory(prefix="matrix-") as scratch:
            row = run(python, oldest, chosen.arguments, chosen.folder or Path(scratch), log)
        green &= row["green"] == "yes"
        print("  ".join(f"{key}: {value}" for key, value in row.items()), f" ({log})", flush=True)
        if chosen.json:
            add(chosen.json, row)
    return 0 if green else 1


if __name__ == "__main__":
    sys.exit(main())
