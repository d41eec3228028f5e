"""Trains and measures the experiments of experiments/plan.yaml; what is there already is not done again.

An experiment is a chain of runs for each seed and one or more measurements of them all. In its lines `{NAME}` stands
for the run NAME of the same seed, in its measurements for those of all seeds, and `{NAME+}` for these joined;
`other+{NAME}` is the encoder `other` joined with each of them. A result
goes to experiments/results/EXPERIMENT.json (or EXPERIMENT-MEASUREMENT.json), from which experiments/tables.py writes
the tables of docs/results/.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from episodes import InputError

ROOT = Path(__file__).resolve().parent.parent
PLAN = ROOT / "experiments" / "plan.yaml"
NAME = re.compile(r"\{([\w-]+)\}")
SEEDED = re.compile(r"-seed\d+$")


@dataclass
class Experiment:
    """An experiment of the plan.

    Args:
        about: what it asks, in a line.
        seeds: of the trainings.
        runs: by name, the command that trains one; `{NAME}` is a run of the same seed.
        measure: the command that measures them, --json left out, or several by name; `{NAME}` is that run of every
            seed.
    """

    about: str
    seeds: list[int]
    runs: dict[str, str]
    measure: str | dict[str, str]

    def commands(self, name: str, seeds: list[int], folder: Path) -> list[tuple[Path, list[str]]]:
        """The file that each command leaves behind, and its arguments, in order."""

        def run(stem: str, seed: int) -> str:
            return str(folder / f"{stem}-seed{seed}")

        found = []
        for seed in seeds:
            for stem, line in self.runs.items():
                words = [NAME.sub(lambda m: run(m[1], seed), word) for word in shlex.split(line)]  # noqa: B023
                place = Path(run(stem, seed))
                end = ["--run.seed", str(seed), "--run.folder", str(place), "--run.resume", "auto"]
                found.append((place / "encoder", [*words, *end]))
        several = self.measure if isinstance(self.measure, dict) else {"": self.measure}
        for part, line in several.items():
            measure: list[str] = []
            for word in shlex.split(line):
                plain = word.replace("+}", "}")
                each = [NAME.sub(lambda m: run(m[1], seed), plain) for seed in seeds]  # noqa: B023
                every = each if NAME.search(plain) else [word]
                measure += ["+".join(every)] if word.endswith("+}") else every
            result = ROOT / "experiments" / "results" / f"{name}{'-' if part else ''}{part}.json"
            found.append((result, [*measure, "--json", str(result.relative_to(ROOT))]))
        return found


def _asked(words: list[str]) -> list[str]:
    """A measurement's arguments without where they read images and write to, and each run by its name alone."""
    for place in ("--json", "--root"):
        if place in words:
            at = words.index(place)
            words = words[:at] + words[at + 2 :]
    return ["+".join(Path(part).name if SEEDED.search(part) else part for part in word.split("+")) for word in words]


def is_done(left: Path, arguments: list[str]) -> bool:
    """Whether what a command leaves behind is there, and of a measurement, whether it was asked the same.

    Its file notes the command: other runs, seeds, episodes or options make it another measurement.
    """
    if left.suffix != ".json" or not left.exists():
        return left.exists()
    content = json.loads(left.read_text(encoding="utf-8"))
    program, *noted = shlex.split(content["provenance"]["command"])
    asked = _asked(arguments)
    if Path(program).name in ("experiments.py", "run.py"):  # measured in this script's own process: by what is in it
        runs = {word for word in asked if SEEDED.search(word)}
        episodes = {str(result["episodes"]) for result in content.get("results", [])}
        return runs == set(content.get("methods", {})) and episodes <= set(asked)
    return _asked(noted) == asked


def metagvae(arguments: list[str]) -> int:
    """Runs a command in a process of its own, so that none inherits another's memory; its exit status."""
    return subprocess.run([sys.executable, "-m", "metagvae", *arguments], check=False).returncode


def read_plan(path: Path = PLAN) -> dict[str, Experiment]:
    """The experiments by name, in their order."""
    return {name: Experiment(**content) for name, content in yaml.safe_load(path.read_text(encoding="utf-8")).items()}


def main() -> int:
    plan = read_plan()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"of {', '.join(plan)}; none lists them")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the plan's")
    parser.add_argument("--folder", default="runs", help="where the runs go")
    parser.add_argument("--list", action="store_true", help="print the commands and do nothing")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.experiments if name not in plan]
    if unknown:
        raise InputError(f"unknown experiment {unknown[0]!r}; known: {', '.join(plan)}.")
    for name in chosen.experiments or plan:
        experiment = plan[name]
        print(f"{name}: {experiment.about}")
        for left, arguments in experiment.commands(name, chosen.seeds or experiment.seeds, Path(chosen.folder)):
            done = is_done(left, arguments)
            if left.exists() and not done:
                print(f"{left} was measured by another command, and is not this:")
            print(f"{'done ' if done else ''}$ metagvae {shlex.join(arguments)}", flush=True)
            if chosen.experiments and not chosen.list and not done:
                status = metagvae(arguments)
                if status:
                    return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
