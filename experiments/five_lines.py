"""How long the five lines of docs/classifier.md take: fresh Python processes, one after the other, the median of each.

python experiments/five_lines.py --json experiments/results/five-lines.json
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

ROOT = Path(__file__).resolve().parent.parent
# the clock is read where the interpreter begins, before the first import, and after the last line
CODE = "import time; began = time.time()\n{snippet}\nimport sys; print(began, time.time(), file=sys.stderr)"


def snippet() -> str:
    """The first block of Python on the page."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "classifier.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def once(code: str) -> tuple[float, float, float]:
    """Seconds from the first import to the printed predictions, from the process's start to them, and to its end."""
    start = time.time()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    end = time.time()
    began, printed = map(float, done.stderr.split()[-2:])
    return printed - began, printed - start, end - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=5, help="processes")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    code = CODE.format(snippet=snippet())
    times = [once(code) for _ in range(arguments.count)]
    names = ("first import to printed predictions", "process started to printed predictions", "the whole process")
    rows = [
        {
            "seconds, wall": name,
            f"median of {len(times)}": f"{statistics.median(column):.2f}",
            "shortest": f"{min(column):.2f}",
            "longest": f"{max(column):.2f}",
        }
        for name, column in zip(names, zip(*times, strict=True), strict=True)
    ]
    for row in rows:
        print("  ".join(row.values()))
    if arguments.json:
        about = f"Fresh processes on {os.cpu_count()} processor cores, files in the system's cache."
        write_json(arguments.json, {"provenance": provenance(), "about": about, "rows": rows})


if __name__ == "__main__":
    main()
