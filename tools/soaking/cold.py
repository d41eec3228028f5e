"""The command line itself, killed and started again."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from soaking.jobs import differs
from soaking.launches import Soak

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "glyphs" / "protonet.yaml"


def cold(soak: Soak, count: int, rng: random.Random) -> dict[str, Any]:
    """The command line itself, started cold, killed, and started again with the same command."""
    shape = ["--encoder.source", "null", "--encoder.width", "8", "--optim.steps", "150", "--run.save_every", "10"]
    few = ["--episodes.way", "5", "--validation.every", "50", "--validation.episodes", "20", "--run.device", "cpu"]

    def command(folder: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "metagvae", "train", "--config", str(CONFIG), *shape, *few]
        words += ["--run.folder", str(folder), "--run.resume", "auto"]
        soak.starts += 1
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=soak.said.open("wb"))

    whole, run = soak.folder / "cold-alone", soak.folder / "cold"
    began = time.perf_counter()
    command(whole).wait()
    seconds = time.perf_counter() - began
    while soak.faults < count or run.exists():
        process, fresh, began = command(run), not run.exists(), time.perf_counter()
        try:
            status = process.wait(rng.uniform(0.3, 1.0) * seconds if soak.faults < count else None)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if status == 0 and fresh:  # the first one may have had to wait for the machine
            seconds = min(seconds, time.perf_counter() - began)
        if status == -signal.SIGKILL:
            soak.faults += 1
        elif status == 0:
            soak.different += differs(whole, run, "learner.safetensors")
            soak.runs += 1
            shutil.rmtree(run)
        else:
            raise SystemExit(f"soak: the command ended in {status}: {soak.said.read_text()[-300:]}")
    row = soak.row(**{"SIGKILLs of the command line": soak.faults, "resumes": soak.faults})
    return {**row, "runs of": "metagvae train"}
