"""Trains small runs while they are killed, their disk is filled and their files are damaged; counts what that changes.

Each launch of a run is a process forked from this one, which has everything loaded, so that hundreds take minutes. A
run ends well if its weights and metrics are, bit for bit, those of the same run left alone.

    python tools/soak.py kills --count 50 --json kills.json
    python tools/soak.py memory --only prototypes --json memory.json     # one learner at a time, if time is short
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # and so no threads that a fork would lose
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for tests/support

import torch
from soaking.cold import cold
from soaking.damage import damage
from soaking.disk import disk
from soaking.jobs import Job
from soaking.kills import kills, writes
from soaking.launches import Soak
from soaking.memory import memory

from metagvae.learners import LEARNERS
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

KINDS = ("prototypes", "maml", "ridge", "pretrain")
CHECKS: dict[str, tuple[Callable[[Soak, int, random.Random], dict[str, Any]], dict[str, Any], tuple[str, ...]]] = {
    "kills": (kills, {"steps": 200}, KINDS),
    "writes": (writes, {"steps": 60, "width": 48, "save_every": 2}, ("prototypes", "pretrain")),
    "disk": (disk, {"steps": 100}, ("prototypes", "pretrain")),
    "damage": (damage, {"steps": 100}, ("prototypes", "pretrain")),
    "cold": (cold, {"steps": 5}, ("prototypes",)),
}


def save(path: Path, row: dict[str, Any]) -> None:
    """Writes a row, in the place of one of the same name if the file has it."""
    old = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    name = next(iter(row.values()))
    rows = [other for other in old if next(iter(other.values())) != name] + [row]
    write_json(path, {"rows": rows, "provenance": provenance()})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("check", choices=[*CHECKS, "memory"])
    parser.add_argument("--count", type=int, default=20, help="faults in all")
    parser.add_argument("--steps", type=int, default=10_000, help="of memory's runs")
    parser.add_argument("--only", nargs="+", help="learners, or pretrain; default: what suits the check, memory: all")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--json", type=Path, help="file to write the counts to; rows of other learners in it stay")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rng, rows, errors = random.Random(chosen.seed), [], []
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        Job("prototypes", 2)(Path(name) / "warm")  # what is imported and compiled at first use, launches then have
    kinds = chosen.only or ([*LEARNERS, "guided", "pretrain"] if chosen.check == "memory" else CHECKS[chosen.check][2])
    for number, kind in enumerate(kinds):
        with tempfile.TemporaryDirectory(prefix="soak-") as name:
            if chosen.check == "memory":
                rows.append(memory(kind, chosen.steps, Path(name)))
            else:
                check, settings, _ = CHECKS[chosen.check]
                soak = Soak(Job(kind, **settings), Path(name))
                share = chosen.count // len(kinds) + (number < chosen.count % len(kinds))
                rows.append(check(soak, share, rng))
                errors += soak.errors
        print(json.dumps(rows[-1]), flush=True)
        if chosen.json:
            save(chosen.json, rows[-1])
    for error in errors:
        print(f"soak: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
