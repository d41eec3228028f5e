"""Trains small runs while they are killed, their disk is filled and their files are damaged; counts what that changes.

Each sitting of a run is a process forked from this one, which has everything loaded, so that hundreds take minutes. A
run ends well if its weights and metrics are, bit for bit, those of the same run left alone.

    python scripts/soak.py kills --count 50 --json kills.json
    python scripts/soak.py memory --only prototypes --json memory.json     # one learner at a time, if time is short
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # and so no threads that a fork would lose

import torch

from episodes import InputError
from metagvae.checkpoints import read_tensors
from metagvae.config import (
    DataConfig,
    EncoderSection,
    EpisodeSection,
    LearnerSection,
    OptimSection,
    PretrainConfig,
    RunSection,
    TrainConfig,
    VAESection,
    ValidationSection,
)
from metagvae.files import is_remnant, write_json
from metagvae.learners import LEARNERS
from metagvae.metrics import read_metrics
from metagvae.pretraining import pretrain
from metagvae.runs import Run, provenance
from metagvae.states import States
from metagvae.stopping import STOPPED, Interrupted
from metagvae.training import train

ROOT = Path(__file__).resolve().parent.parent
GUIDANCE = [{"name": "deformable_pca"}]
KINDS = ("prototypes", "maml", "ridge", "pretrain")


class Job:
    """One kind of run: a learner's training, or ``pretrain``.

    Args:
        width: feature maps of the network; more make larger states.
        save_every: steps between states.
    """

    def __init__(self, kind: str, steps: int, width: int = 8, save_every: int = 10, log_every: int = 5) -> None:
        self.kind, self.steps, self.width = kind, steps, width
        self.save_every, self.log_every = save_every, log_every
        self.name = "omniglot" if os.environ.get("METAGVAE_DATA") else "glyphs"
        dataset = DataConfig(self.name).make()
        # of few classes: a sitting's time goes into steps and writes, not into validation
        few = torch.arange(12)
        self.bank, self.validation = dataset.load("train").subset(few), dataset.load("validation").subset(few)
        self.weights = "vae.safetensors" if kind == "pretrain" else "learner.safetensors"

    def __call__(self, folder: Path) -> None:
        """A sitting in this process."""
        run = RunSection(str(folder), "auto", device="cpu", log_every=self.log_every, save_every=self.save_every)
        optim, data = OptimSection(steps=self.steps), DataConfig(self.name)
        if self.kind == "pretrain":
            encoder = EncoderSection(width=self.width, latent=8)
            vae = VAESection(guidance=GUIDANCE, decoder_width=4)
            pretrain(PretrainConfig(data, encoder=encoder, vae=vae, batch=16, optim=optim, run=run), self.bank)
            return
        config = TrainConfig(
            data,
            encoder=EncoderSection(width=self.width, latent=8, norm="group", features=["backbone"]),
            learner=LearnerSection(self.kind),
            episodes=EpisodeSection(5, 1, 2),
            validation=ValidationSection(max(50, self.steps // 10), 5, 1, 5, 20),
            optim=optim,
            run=run,
        )
        train(config, self.bank, self.validation)


def fork(work: Callable[[], object], said: Path) -> int:
    """A process that does ``work``, its stderr in a file; its id."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        work()
        status = 0
    except InputError as error:
        print(error, file=sys.stderr)
        status = 2
    except Interrupted:
        status = STOPPED
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def differs(one: Path, other: Path, weights: str) -> bool:
    """Whether two finished runs differ in a bit of their weights or metrics, or one left something beside."""
    a, b = read_tensors(one / weights), read_tensors(other / weights)
    lines = [[{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(run)] for run in (one, other)]
    same = a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) and lines[0] == lines[1]
    return not same or any(is_remnant(path) for path in other.rglob("*"))


class Soak:
    """Runs of one job, disturbed and compared with one left alone."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder = job, folder
        self.said = folder / "said"
        self.whole = folder / f"{job.kind}-alone"
        began = time.perf_counter()
        if ended(fork(lambda: job(self.whole), self.said)):
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
        return fork(lambda: (prepare(), self.job(self.run)), self.said)

    def finish(self, status: int) -> bool:
        """Takes note of how a sitting ended; True if the run is done."""
        if status == 0:
            if differs(self.whole, self.run, self.job.weights):
                self.different += 1
                self.errors.append(f"{self.run.name} differs")
            shutil.rmtree(self.run)
            self.runs += 1
            return True
        if status != -signal.SIGKILL:
            self.errors.append(f"status {status}: {self.said.read_text()[-300:]}")
            raise SystemExit(f"soak: a sitting ended in {self.errors[-1]}")
        return False

    def complete(self) -> None:
        """Lets the run in hand end by itself."""
        if self.run.exists():
            self.finish(ended(self.start()))

    def row(self, **more: Any) -> dict[str, Any]:
        return {"runs of": self.job.kind, **more, "runs finished": self.runs, "runs that differ": self.different}


def kills(soak: Soak, count: int, rng: random.Random) -> dict[str, Any]:
    """SIGKILL at random moments, from the first to past the last step."""
    while soak.faults < count:
        process = soak.start()
        time.sleep(rng.uniform(0, 0.8 * soak.seconds))
        os.kill(process, signal.SIGKILL)
        status = ended(process)
        soak.faults += status == -signal.SIGKILL
        soak.finish(status)
    resumes = soak.faults
    soak.complete()
    return soak.row(**{"SIGKILLs at random moments": soak.faults, "resumes": resumes})


@contextmanager
def announced(pipe: int) -> Iterator[None]:
    """Within it, each write of a state says so through a pipe: ``w`` before, ``d`` after."""
    save = States.save

    def told(self: States, *arguments: Any) -> None:
        os.write(pipe, b"w")
        save(self, *arguments)
        os.write(pipe, b"d")

    States.save = told  # type: ignore[method-assign]
    try:
        yield
    finally:
        States.save = save  # type: ignore[method-assign]


def write_seconds(soak: Soak) -> float:
    """How long the write of a state takes here."""
    state = States(soak.whole / "state").load()
    assert state is not None
    other = soak.folder / "timed"
    other.mkdir()
    began = time.perf_counter()
    for step in range(5):
        States(other).save(step, state)
    return (time.perf_counter() - began) / 5


def writes(soak: Soak, count: int, rng: random.Random) -> dict[str, Any]:
    """SIGKILL between the beginning and the end of the write of a state; none may leave a run unreadable."""
    took, partial, unreadable, newest = write_seconds(soak), 0, 0, -1
    while soak.faults < count:
        reader, writer = os.pipe()
        with announced(writer):
            process = soak.start(lambda reader=reader: os.close(reader))  # type: ignore[misc]
        os.close(writer)
        heard, wanted = b"", rng.randint(1, 3)
        while heard.count(b"w") < wanted and (byte := os.read(reader, 1)):
            heard += byte
        time.sleep(rng.uniform(0, took))
        os.kill(process, signal.SIGKILL)
        status = ended(process)
        while byte := os.read(reader, 1):
            heard += byte
        os.close(reader)
        if status == -signal.SIGKILL:
            hit = heard.endswith(b"w")
            soak.faults += hit
            partial += hit and any(is_remnant(path) for path in (soak.run / "state").iterdir())
            with redirect_stderr(StringIO()) as said:
                state = States(soak.run / "state").load()
            step = state["step"] if state else -1
            unreadable += bool(said.getvalue()) or step < newest
            newest = step
        if soak.finish(status):
            newest = -1
    soak.complete()
    return soak.row(
        **{"SIGKILLs while a state was written": soak.faults, "of them before its renaming": partial},
        **{"unreadable or older afterwards": unreadable},
    )


def refused(soak: Soak, before: list[int]) -> str | None:
    """What is wrong with how a sitting ended that could not write; None if all is as it should be."""
    text = soak.said.read_text()
    if not text.startswith(("cannot write", "TensorBoard")) or "Traceback" in text:
        return text[-300:]
    if any(is_remnant(path) for path in soak.run.rglob("*")):
        return "something is left beside"
    return None if States(soak.run / "state").steps()[-1:] >= before[-1:] else "an older state is gone"


def disk(soak: Soak, count: int, rng: random.Random) -> dict[str, Any]:
    """A disk without room: files that may not grow past a size; and, for root, a small file system that is full."""
    size = max(path.stat().st_size for path in (soak.whole / "state").iterdir())
    wrong, full = 0, 0
    small = soak.folder / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={8 * size}", "tmpfs", str(small)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    home = soak.folder
    try:
        while soak.faults < count:
            on_small = mounted and soak.faults % 2 == 1
            soak.folder = small if on_small else home
            first = soak.start()
            time.sleep(rng.uniform(0.2, 0.6) * soak.seconds)
            os.kill(first, signal.SIGKILL)
            if soak.finish(ended(first)):
                continue
            before = States(soak.run / "state").steps()
            if on_small:
                with (small / "filler").open("wb", buffering=0) as file:
                    file.write(bytes(max(0, shutil.disk_usage(small).free - rng.randrange(size))))
                status = ended(soak.start())
                (small / "filler").unlink()
            else:
                limit = rng.randrange(size)
                status = ended(soak.start(lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))))  # type: ignore[misc]
            if status == 2:
                soak.faults += 1
                full += on_small
                problem = refused(soak, before)
                wrong += problem is not None
                if problem:
                    soak.errors.append(problem)
                soak.complete()
            else:
                soak.finish(status)
    finally:
        soak.folder = home
        if mounted:
            subprocess.run(["umount", str(small)], check=False)
    return soak.row(
        **{"writes without room": soak.faults, "of them on a full file system": full if mounted else "not root"},
        **{"older state gone, remnant or traceback": wrong},
    )


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "empty": lambda path, rng: path.write_bytes(b"") and None,
    "cut": lambda path, rng: os.truncate(path, rng.randrange(path.stat().st_size)),
    "bit": flip,
    "zeros": lambda path, rng: path.write_bytes(bytes(path.stat().st_size)) and None,
    "gone": lambda path, rng: path.unlink(),
}


def damage(soak: Soak, count: int, rng: random.Random) -> dict[str, Any]:
    """Between starts, one file of the run is emptied, cut, zeroed, removed or has a bit flipped; or both states are."""
    went_on, said_so, wrong = 0, 0, 0
    while soak.faults < count:
        process = soak.start()
        time.sleep(rng.uniform(0.3, 0.7) * soak.seconds)
        os.kill(process, signal.SIGKILL)
        if soak.finish(ended(process)):
            continue
        states = States(soak.run / "state")
        if len(states.steps()) < 2:
            continue
        newest, older = (states.path(step) for step in states.steps())
        (events,) = sorted((soak.run / "events").iterdir())[-1:]
        metrics, lock = soak.run / "metrics.jsonl", soak.run / "lock"
        config, data = soak.run / "config.yaml", soak.run / "data.json"
        targets: list[list[Path]] = [[newest]] * 4 + [[older], [events], [lock], [newest, older], [config], [data]]
        chosen = rng.choice(targets)
        kept = {path: path.read_bytes() for path in [*chosen, metrics]}
        how = rng.choice(list(DAMAGES))
        if chosen[0] == events and how == "gone":
            how = "cut"
        for path in chosen:
            DAMAGES[how](path, rng)
        if rng.random() < 0.3:  # what a sitting wrote after its last state, the last line cut short
            with metrics.open("ab") as file:
                file.write(b'{"step": 999999, "loss": 1.0}\n{"step": 1000')
        soak.faults += 1
        status = ended(soak.start())
        text = soak.said.read_text()
        if status == 0:
            went_on += 1
            soak.finish(status)
            continue
        # nothing to go on from, or the run's own description is gone: one sentence, and nothing is lost by it
        clear = status == 2 and "Traceback" not in text and any(path.name in text for path in chosen)
        clear = clear or (status == 2 and chosen == [config] and str(soak.run) in text)
        said_so += clear
        wrong += not clear
        if not clear:
            soak.errors.append(f"{how} {[path.name for path in chosen]}: status {status}: {text[-300:]}")
        for path, content in kept.items():
            path.write_bytes(content)
        soak.complete()
    return soak.row(
        **{"files damaged between starts": soak.faults, "went on": went_on, "one clear error": said_so},
        **{"anything else": wrong},
    )


def cold(soak: Soak, count: int, rng: random.Random) -> dict[str, Any]:
    """The command line itself, started cold, killed, and started again with the same command."""
    shape = ["--encoder.source", "null", "--encoder.width", "8", "--optim.steps", "150", "--run.save_every", "10"]
    few = ["--episodes.way", "5", "--validation.every", "50", "--validation.episodes", "20", "--run.device", "cpu"]

    def command(folder: Path) -> subprocess.Popen[bytes]:
        config = ROOT / "configs" / "glyphs" / "protonet.yaml"
        words = [sys.executable, "-m", "metagvae", "train", "--config", str(config), *shape, *few]
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
        Job(kind, steps, save_every=500, log_every=50)(folder / "run")
        (folder / "samples.json").write_text(json.dumps(samples))

    status = ended(fork(work, folder / "said"))
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
        "growth, %": round(100 * (largest / first - 1), 2),
        "open files, 500 and end": f"{late[0][2]}, {late[-1][2]}",
        "bytes per logged line, metrics and events": f"{logs[0] // lines}, {sum(logs[1:]) // lines}",
    }


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
        Job("prototypes", 2)(Path(name) / "warm")  # what is imported and compiled at first use, sittings then have
    kinds = chosen.only or ([*LEARNERS, "pretrain"] if chosen.check == "memory" else CHECKS[chosen.check][2])
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
