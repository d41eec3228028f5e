"""Processor time of `metagvae generate`: 1,000 samples of the shipped generator, start included, on one thread.

python experiments/generate_time.py --json experiments/results/generate-time.json

Five calls of the same command, each a process of its own; the files of all five are compared byte by byte.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from statistics import median

from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

ARGUMENTS = ["generate", "generator-omniglot", "--draw", "samples", "--count", "1000", "--device", "cpu"]
REPEATS = 5


def seconds_used() -> float:
    """Processor seconds of all child processes that have ended, the system's on their behalf included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def marks(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file, by name."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    target = parser.parse_args().json
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    seconds, drawn = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(REPEATS):
            out = Path(folder) / str(number)
            before = seconds_used()
            subprocess.run(
                [sys.executable, "-m", "metagvae", *ARGUMENTS, "--out", str(out)], env=environment, check=True
            )
            seconds.append(round(seconds_used() - before, 2))
            drawn.append(marks(out))
    row = {
        "samples": 1000,
        "processor seconds, median": f"{median(seconds):.1f}",
        "least and most": f"{min(seconds):.1f} to {max(seconds):.1f}",
        "files alike byte by byte": "all" if all(files == drawn[0] for files in drawn) else "no",
    }
    about = f"`metagvae {' '.join(ARGUMENTS)}`, {REPEATS} calls on one thread, start of Python and torch included."
    write_json(
        target, {"provenance": provenance(), "about": about, "rows": [row], "seconds": seconds, "files": drawn[0]}
    )
    print(row)


if __name__ == "__main__":
    main()
