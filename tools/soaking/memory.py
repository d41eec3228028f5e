"""Resident memory, open files and logs over a long run."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

from metagvae.config.sections import DataConfig
from metagvae.runs.run import Run
from soaking.jobs import Job, ended
from tests.support.faults import begin


def memory(kind: str, steps: int, folder: Path) -> dict[str, Any]:
    """Resident memory and open files over a long run."""
    samples: list[tuple[int, float, int]] = []
    log = Run.log

    def sampled(self: Run, step: int, values: Any) -> None:
        log(self, step, values)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        samples.append((step, pages * resource.getpagesize() / 2**20, len(os.listdir("/proc/self/fd"))))

    def work() -> None:
        Run.log = sampled  # type: ignore[method-assign]
        Job(kind, steps, save_every=500, log_every=50, data=DataConfig("glyphs", size=16))(folder / "run")
        (folder / "samples.json").write_text(json.dumps(samples))

    status = ended(begin(work, folder / "said"))
    if status:
        raise SystemExit(f"soak: {kind} ended in {status}: {(folder / 'said').read_text()[-300:]}")
    taken = json.loads((folder / "samples.json").read_text())
    late = [sample for sample in taken if sample[0] >= 500]
    first, largest = late[0][1], max(sample[1] for sample in late)
    lines = len((folder / "run" / "metrics.jsonl").read_text().splitlines())
    logs = [
        path.stat().st_size for path in ((folder / "run" / "metrics.jsonl"), *(folder / "run" / "events").iterdir())
    ]
    return {
        "run": kind,
        "steps": steps,
        "MB at step 500": round(first, 1),
        "largest later": round(largest, 1),
        "at the end": round(late[-1][1], 1),
        "growth, MB": round(largest - first, 1),
        "growth, %": round(100 * (largest / first - 1), 2),
        "open files, 500 and end": f"{late[0][2]}, {late[-1][2]}",
        "bytes per logged line, metrics and events": f"{logs[0] // lines}, {sum(logs[1:]) // lines}",
    }
