"""Everything that needs a GPU, in the few minutes that one is lent: `python tools/gpu_minutes.py --data D --out O`.

Needs torch, numpy, scipy, PyYAML, safetensors, pillow and this checkout; jsonargparse, easyfsl, learn2learn and
Triton where they are, and the rows say so where not. Each part is a process of its own with a limit of its own; its
rows are in O/results.json as they come, in order of value, so that whatever ends the machine early leaves what was
measured.

    names      train, pretrain and evaluate under every name of the device
    agreement  every learner's and every guidance's step against the CPU, float32 and float64
    waits      how often a step makes the host wait
    exactness  resumed and repeated runs, bit for bit; two ranks over NCCL
    compiled   a step with its backbone compiled and without
    speed      the benchmark's rows of a GPU
    minutes    time to 2.0 % on Omniglot
    trainings  long trainings from configs, side by side, while the time lasts
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tools")]

# parts of one line run at the same time, where there are cores for it, after those that are timed; limits in seconds
PHASES: tuple[dict[str, int], ...] = (
    {"names": 60},
    {"compiled": 90},
    {"speed": 150},
    {"minutes": 75},
    {"agreement": 150, "waits": 150, "exactness": 200, "trainings": 600},
)
PARTS = tuple(name for phase in PHASES for name in phase)
LOG = 6 * 2**20


@dataclass
class Part:
    """A part at work."""

    name: str
    limit: float
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    log: IO[bytes] | None = None
    began: float = 0.0
    ended: float = 0.0
    state: str = "not begun"
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "rows.jsonl"

    def start(self, options: argparse.Namespace, end: float) -> None:
        from gpu.setup import Setup

        self.folder.mkdir(parents=True, exist_ok=True)
        self.began = time.time()
        until = min(self.began + self.limit, end)
        setup = Setup(options.data, str(self.folder), options.device, options.reduced, until, options.trainings)
        self.limit = until - self.began
        self.log = (self.folder / "log.txt").open("wb")
        command = [sys.executable, str(Path(__file__)), "--part", self.name, "--setup", setup.to_json()]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)
        self.state = "running"

    def look(self) -> bool:
        """Reads what is there; whether the part is over. One past its limit is killed with all it started."""
        from gpu.setup import rows_of

        assert self.process is not None
        assert self.log is not None
        self.rows = rows_of(self.path)
        status = self.process.poll()
        if status is None and time.time() < self.began + self.limit + 3:
            return False
        if status is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.rows, self.ended = rows_of(self.path), time.time()
        self.state = "stopped at its limit" if status is None else "done" if status == 0 else f"failed, status {status}"
        self.log.close()
        return True

    def to_dict(self) -> dict[str, Any]:
        last = self.ended or (time.time() if self.began else 0.0)
        return {"state": self.state, "seconds": round(last - self.began, 1), "rows": self.rows}


def host(options: argparse.Namespace) -> dict[str, Any]:
    """The machine, its packages, and what is missing."""
    import torch
    from gpu import OPTIONAL, missing

    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else "none",
        "devices": torch.cuda.device_count() if cuda else 0,
        "memory": torch.cuda.mem_get_info()[1] if cuda else None,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "missing": missing(OPTIONAL),
        "reduced": options.reduced,
        "data": sorted(path.name for path in Path(options.data).iterdir()) if options.data else [],
    }


def write(out: Path, content: dict[str, Any]) -> None:
    """`results.json`, whole at any moment."""
    beside = out / "results.json.part"
    beside.write_text(json.dumps(content, indent=1, default=str), encoding="utf-8")
    beside.replace(out / "results.json")


def collect(out: Path, work: Path, parts: list[Part]) -> None:
    """The parts' logs in one file, and the trainings' archives as far as they are."""
    each = LOG // len(PARTS)
    with (out / "log.txt").open("wb") as log:
        for part in parts:
            path = part.folder / "log.txt"
            if path.is_file():
                log.write(f"\n===== {part.name}: {part.state}\n".encode() + path.read_bytes()[-each:])
    for archive in (work / "trainings" / "out").glob("*.tar"):
        shutil.move(str(archive), str(out / archive.name))


def run(options: argparse.Namespace) -> int:
    """Runs the chosen parts, phase by phase; 1 if one of them failed."""
    out = Path(options.out)
    work = Path(options.work or out / "work").resolve()
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("METAGVAE_CACHE", str(work / "cache"))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    if options.data:
        options.data = os.environ["METAGVAE_DATA"] = str(Path(options.data).resolve())
    start, cores = time.time(), os.cpu_count() or 1
    slower = 1 if options.device == "cuda" else 10
    end = start + slower * options.seconds
    results: dict[str, Any] = {"host": host(options), "parts": {}}
    phases = [{name: limit for name, limit in phase.items() if name in options.only} for phase in PHASES]
    if options.reduced:  # nothing is timed in earnest: all at once
        phases = [{name: limit for phase in phases for name, limit in phase.items()}]
    everything: list[Part] = []
    for phase in phases:
        parts = [Part(name, slower * limit, work / name) for name, limit in phase.items()]
        everything += parts
        waiting, running = list(parts), []
        while waiting or running:
            while waiting and (len(running) < max(1, cores // 2)) and time.time() < end - 5:
                waiting[0].start(options, end)
                running.append(waiting.pop(0))
            running = [part for part in running if not part.look()]
            results["parts"].update({part.name: part.to_dict() for part in parts})
            results["seconds"] = round(time.time() - start, 1)
            write(out, results)
            collect(out, work, everything)
            if not running and time.time() >= end - 5:
                break
            time.sleep(0.5)
    print(summary(results))
    return int(any(part["state"].startswith("failed") for part in results["parts"].values()))


def summary(results: dict[str, Any]) -> str:
    """A line per row: its figures, or its error."""
    lines = [json.dumps(results["host"])]
    for name, part in results["parts"].items():
        lines.append(f"== {name}: {part['state']}, {part['seconds']} s")
        for row in part["rows"]:
            if "error" in row:
                lines.append(f"  {row['row']}: {row['error'][:300]} ({row['where'][-160:]})")
            elif "rows" in row:
                lines += [_speed_line(one) for one in row["rows"]]
            else:
                lines.append(f"  {json.dumps(row)[:400]}")
    return "\n".join([*lines, f"{results['seconds']} s in all"])


def _speed_line(row: dict[str, Any]) -> str:
    numbers = ", ".join(f"{key} {row[key]:.4g}" for key in ("ours", "theirs", "ratio", "wanted") if row.get(key))
    return f"  {row['group']}: {row['name']} [{row['peer']}]: {numbers} {row['unit']}; {row['note'][:120]}"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the data sets (omniglot, miniimagenet); noise of that shape without")
    parser.add_argument("--out", help="folder for results.json, log.txt and the trainings' archives")
    parser.add_argument("--work", help="folder for runs and caches; out/work if left out")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--reduced", action="store_true", help="small sizes: see that everything runs, on a CPU too")
    parser.add_argument("--seconds", type=float, default=530, help="for all of it; on a CPU ten times as many")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--trainings", help="file of the long trainings in place of tools/gpu/trainings.yaml")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--setup", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    from gpu import NEEDED, missing

    if absent := missing(NEEDED):
        print(f"gpu_minutes needs {', '.join(absent)}; install them.", file=sys.stderr)
        return 2
    if options.part:
        from gpu.setup import Report, Setup

        setup = Setup(**json.loads(options.setup))
        importlib.import_module(f"gpu.{options.part}").run(setup, Report(setup.folder / "rows.jsonl"))
        return 0
    import torch

    cuda = torch.cuda.is_available()
    if not options.out:
        print("gpu_minutes needs --out, a folder for the results.", file=sys.stderr)
        return 2
    if options.device == "auto":
        options.device = "cuda" if cuda else "cpu"
    if (options.device == "cuda" and not cuda) or (options.device == "cpu" and not options.reduced):
        print("gpu_minutes found no CUDA device; --reduced shows on a CPU that everything runs.", file=sys.stderr)
        return 2
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
