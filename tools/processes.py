"""Two processes against one, on this machine's CPU: the weights after some steps, the time per episode, a killed rank.

Needs Omniglot (METAGVAE_DATA). Writes experiments/results/processes.json and experiments/results/killed-rank.json.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.storage.tensors import read_tensors

ROOT = Path(__file__).resolve().parent.parent
BEGUN = provenance()  # of the tree as it was before a row changed a file of it
# what is compared: its command, and the episodes (or pictures) of a step
WORKS = {
    "prototypes": (["train", "--config", "configs/cluster/protonet.yaml", "--episodes.way=5"], 4, "episode"),
    "MAML": (["train", "--config", "configs/omniglot/maml.yaml", "--episodes.tasks=4"], 4, "episode"),
    "pretraining": (["pretrain", "--config", "configs/omniglot/guided-vae.yaml", "--batch=64"], 64, "picture"),
}


def command(work: str, folder: Path, steps: int, processes: int, *more: str) -> list[str]:
    arguments = WORKS[work][0]
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", *more]
    quiet = ["--validation.every=0"] if arguments[0] == "train" else []
    settings = [f"--optim.steps={steps}", "--optim.precision=float32", "--optim.schedule=constant"]
    settings.append(f"--run.log_every={max(1, min(5, steps // 10))}")
    where = [f"--run.folder={folder}", "--run.device=cpu", "--run.resume=auto", "--run.save_every=10"]
    return [*start, "-m", "metagvae", *arguments, *quiet, *settings, *where]


def environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def weights(folder: Path) -> dict[str, Any]:
    return read_tensors(next(folder.glob("[lv]*.safetensors")))


def difference(one: Path, other: Path) -> float:
    a, b = weights(one), weights(other)
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def compare(steps: int, timed: bool, only: list[str]) -> None:
    """A row per method: the largest weight difference and, if timed, milliseconds per item once under way."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        for work in only:
            _, items, unit = WORKS[work]
            times = {}
            for name, processes, threads in (("one", 1, 1), ("two", 2, 1), ("threads", 1, 2)):
                folder = Path(place) / f"{work}-{name}"
                line = command(work, folder, steps, processes)
                subprocess.run(line, cwd=ROOT, env=environment(threads), check=True, capture_output=True)
                marks = [(m["step"], m["seconds"]) for m in read_metrics(folder) if "seconds" in m]
                (first, early), (last, late) = marks[1], marks[-1]
                times[name] = 1000 * (late - early) / ((last - first) * items)
            base = Path(place) / f"{work}-one"
            row = {
                "method": work,
                "steps": steps,
                "largest weight difference, 2 processes": f"{difference(base, base.with_name(f'{work}-two')):.1e}",
                "the same, 2 threads": f"{difference(base, base.with_name(f'{work}-threads')):.1e}",
            }
            if timed:
                row |= {
                    "unit": unit,
                    "1 process, 1 thread (ms per unit)": f"{times['one']:.2f}",
                    "1 process, 2 threads": f"{times['threads']:.2f}",
                    "2 processes, 1 thread each": f"{times['two']:.2f}",
                }
            rows.append(row)
            print(rows[-1], flush=True)
            save("processes", rows)


def save(name: str, rows: list[dict[str, Any]]) -> None:
    write_json(ROOT / "experiments" / "results" / f"{name}.json", {"provenance": BEGUN, "rows": rows})


def workers(launcher: int) -> list[int]:
    """The processes that torchrun started, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        ranks = [int(variable[5:]) for variable in variables if variable.startswith(b"RANK=")]
        if parent == launcher and ranks:
            found[ranks[0]] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def brief(folder: Path, *more: str) -> list[str]:
    """A job of two processes that takes seconds."""
    return [*command("MAML", folder, 30, 2, *more), "--episodes.tasks=2"]


def disturbed(folder: Path, rank: int, restarts: int) -> tuple[subprocess.Popen[str], float]:
    """A job of two processes one of which is killed after the first states; the job, and when that was."""
    line = brief(folder, f"--max-restarts={restarts}")
    job = subprocess.Popen(line, cwd=ROOT, env=environment(1), stderr=subprocess.PIPE, text=True)
    while not any(m["step"] >= 15 for m in read_metrics(folder)):
        if job.poll() is not None:
            raise SystemExit(f"the job ended by itself: {job.stderr.read() if job.stderr else ''}")
        time.sleep(0.05)
    os.kill(workers(job.pid)[rank], signal.SIGKILL)
    return job, time.perf_counter()


def kill() -> list[dict[str, Any]]:
    """A row per killed rank: seconds to the end of the job, what it said, and how a restarted job ends."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        calm = Path(place) / "calm"
        subprocess.run(brief(calm), cwd=ROOT, env=environment(1), check=True, capture_output=True)
        for rank in (0, 1):
            job, began = disturbed(Path(place) / f"ended-{rank}", rank, 0)
            _, said = job.communicate()
            seconds = time.perf_counter() - began
            again, _ = disturbed(Path(place) / f"restarted-{rank}", rank, 1)
            again.communicate()
            same = difference(calm, Path(place) / f"restarted-{rank}") if again.returncode == 0 else None
            rows.append(
                {
                    "killed (SIGKILL)": f"rank {rank} of 2",
                    "seconds until the job ended": f"{seconds:.1f}",
                    "cause shown": "yes" if "SIGKILL" in said else "no",
                    "with --max-restarts=1 it": "completed" if again.returncode == 0 else "failed",
                    "weights from the undisturbed run's": "none" if same is None else f"{same:.1e}",
                }
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("compare", "kill"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--timed", action="store_true", help="report times too; for a machine with no other work")
    parser.add_argument("--only", nargs="+", choices=WORKS, default=list(WORKS), help="what is compared")
    given = parser.parse_args()
    if given.what == "compare":
        compare(given.steps, given.timed, given.only)
    else:
        save("killed-rank", kill())


if __name__ == "__main__":
    main()
