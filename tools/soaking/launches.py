"""A run that is disturbed, launch after launch, and compared with one left alone."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soaking.jobs import Job, differs, ended
from tests.support.faults import begin


class Soak:
    """Runs of one job, disturbed and compared with one left alone."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder = job, folder
        self.said = folder / "said"
        self.whole = folder / f"{job.kind}-alone"
        began = time.perf_counter()
        if ended(begin(lambda: job(self.whole), self.said)):
            raise SystemExit(f"soak: the run left alone failed: {self.said.read_text()}")
        self.seconds = time.perf_counter() - began
        self.runs = self.starts = self.faults = self.different = 0
        self.errors: list[str] = []

    @property
    def run(self) -> Path:
        """The folder of the run that is being disturbed."""
        return self.folder / f"{self.job.kind}-{self.runs}"

    def start(self, prepare: Callable[[], object] = lambda: None) -> int:
        self.starts += 1
        return begin(lambda: (prepare(), self.job(self.run)), self.said)

    def finish(self, status: int) -> bool:
        """Takes note of how a launch ended; True if the run is done."""
        if status == 0:
            if differs(self.whole, self.run, self.job.weights):
                self.different += 1
                self.errors.append(f"{self.run.name} differs")
            shutil.rmtree(self.run)
            self.runs += 1
            return True
        if status != -signal.SIGKILL:
            self.errors.append(f"status {status}: {self.said.read_text()[-300:]}")
            raise SystemExit(f"soak: a launch ended in {self.errors[-1]}")
        return False

    def complete(self) -> None:
        """Lets the run in hand end by itself."""
        if self.run.exists():
            self.finish(ended(self.start()))

    def row(self, **more: Any) -> dict[str, Any]:
        return {"runs of": self.job.kind, **more, "runs finished": self.runs, "runs that differ": self.different}
