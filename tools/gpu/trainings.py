"""Long trainings side by side, each a chain of ordinary commands in a process of its own.

A chain that is done leaves its runs, without the states, in the archives; of one that the time ran out on, the newest
state comes along, so that it can be resumed elsewhere.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpu import missing
from gpu.setup import REPOSITORY, Report, Setup

PLAN = Path(__file__).with_name("trainings.yaml")
ARCHIVE = 14 * 2**20  # bytes: what comes back from a lent machine comes in files of at most 16 MiB
SIDE_BY_SIDE = 8  # they take turns on the GPU; a start of Python takes ten seconds, in which the others go on
CLOSING = 15  # seconds before the end at which trainings are asked to stop and leave a state
LEFT_OUT = {"state", "events", "lock", "figures"}


@dataclass(frozen=True)
class Chain:
    """Commands that follow each other.

    Args:
        name: of the chain.
        needs: the data set's folder; without it the chain is left out.
        commands: without ``metagvae``; {runs} stands for the folder of runs, {data} for that of the data sets.
        reduced: what each pretrain and train gets besides, to see that it runs.
    """

    name: str
    needs: str
    commands: tuple[str, ...]

    def arguments(self, command: str, setup: Setup) -> list[str]:
        """The command's arguments, on the setup's device."""
        words = shlex.split(command.replace("{runs}", str(setup.folder / "runs")).replace("{data}", str(setup.data)))
        if words[0] == "evaluate":
            return [*words, "--device", setup.device, *(["--episodes", "20"] if setup.reduced else [])]
        small = ["--optim.steps", "4", "--run.log_every", "1"] if setup.reduced else []
        root = setup.root(self.needs)
        return [*words, "--run.device", setup.device, "--run.resume", "auto", "--data.root", str(root), *small]


def finished(words: list[str]) -> bool:
    """Whether a pretrain or train, in these words, has left its encoder already, in an earlier call."""
    return (
        "--run.folder" in words and (Path(words[words.index("--run.folder") + 1]) / "encoder" / "config.json").is_file()
    )


def chains(path: Path = PLAN) -> list[Chain]:
    """The plan, in order of value."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = []
    for name, entry in content.items():
        for seed in entry.get("seeds", [0]):
            commands = [command.replace("{seed}", str(seed)) for command in entry["commands"]]
            found.append(Chain(name.replace("{seed}", str(seed)), entry.get("needs", "omniglot"), tuple(commands)))
    return found


class Work:
    """The chains at work, stopped together."""

    def __init__(self, setup: Setup, report: Report) -> None:
        self.setup, self.report = setup, report
        self.running: set[subprocess.Popen[bytes]] = set()
        self.lock, self.over = threading.Lock(), threading.Event()
        self.logs = setup.folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)

    def command(self, chain: Chain, command: str) -> int | None:
        """The status that a command ends in; None if the time was over before it began."""
        with self.lock:
            if self.over.is_set():
                return None
            with (self.logs / f"{chain.name}.txt").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "metagvae", *chain.arguments(command, self.setup)],
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "OMP_NUM_THREADS": "2"},
                    cwd=REPOSITORY,
                )
            self.running.add(process)
        status = process.wait()
        with self.lock:
            self.running.discard(process)
        return status

    def chain(self, chain: Chain) -> None:
        start, seconds = time.time(), []
        state = "done"
        for command in chain.commands:
            began = time.time()
            done = finished(chain.arguments(command, self.setup))
            status = 0 if done else self.command(chain, command)
            seconds.append(round(time.time() - began, 1))
            if status != 0:
                state = "not begun" if status is None and len(seconds) == 1 else f"stopped, status {status}"
                break
        log = self.logs / f"{chain.name}.txt"
        tail = log.read_text(encoding="utf-8", errors="replace")[-1500:] if log.is_file() else ""
        self.report.row(
            chain.name, state=state, seconds=seconds, total=round(time.time() - start, 1), end=tail.splitlines()[-12:]
        )

    def stop(self) -> None:
        """Asks every running command to write its state and end; kills what does not."""
        with self.lock:
            self.over.set()
            running = list(self.running)
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.time() + CLOSING / 2
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.time()))
            except subprocess.TimeoutExpired:
                process.kill()


def kept(folder: Path) -> Iterator[Path]:
    """The files of a run that come along: all but states, unless it is not finished, and TensorBoard's."""
    finished = (folder / "encoder").is_dir()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if path.is_file() and not LEFT_OUT & set(inside) and "tfevents" not in path.name:
            yield path
    states = sorted((folder / "state").glob("step-*.pt"))
    if states and not finished:
        yield states[-1]


def pack(folder: Path, out: Path) -> list[str]:
    """Writes the runs and logs into archives of limited size; returns their names."""
    files = [path for run in sorted((folder / "runs").glob("*")) if run.is_dir() for path in kept(run)]
    files += sorted((folder / "runs").glob("*.json")) + sorted((folder / "logs").glob("*.txt"))
    archives: list[list[Path]] = [[]]
    size = 0
    for path in files:
        if archives[-1] and size + path.stat().st_size > ARCHIVE:
            archives.append([])
            size = 0
        archives[-1].append(path)
        size += path.stat().st_size + 1024
    names = []
    for number, content in enumerate(archives):
        name = f"trainings-{number}.tar"
        beside = out / f"{name}.part"
        with tarfile.open(beside, "w") as archive:
            for path in content:
                archive.add(path, path.relative_to(folder))
        beside.replace(out / name)
        names.append(name)
    return names


def figures(folder: Path) -> dict[str, Any]:
    """Errors in percent of every evaluation, by file, method and shape."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "runs").glob("*.json")):
        for result in json.loads(path.read_text(encoding="utf-8")).get("results", []):
            key = f"{result['method']} {result['way']}w{result['shot']}s"
            found.setdefault(path.stem, {})[key] = [100 * result["error"], 100 * result["half_width"]]
    return found


def run(setup: Setup, report: Report) -> None:
    if missing(("jsonargparse",)):
        report.row("trainings", note="not run: the command line needs jsonargparse")
        return
    out = setup.folder / "out"
    for folder in (out, setup.folder / "runs"):
        folder.mkdir(parents=True, exist_ok=True)
    plan = []
    for chain in chains(Path(setup.trainings or PLAN))[: 1 if setup.few else None]:
        root = setup.root(chain.needs)
        if root and Path(root).is_dir():
            plan.append(chain)
        else:
            report.row(chain.name, state=f"left out: no folder {chain.needs} among the data")
    work = Work(setup, report)
    side_by_side = max(1, min(len(plan), SIDE_BY_SIDE, (os.cpu_count() or 2) // 2))
    with ThreadPoolExecutor(side_by_side) as pool:
        done = [pool.submit(work.chain, chain) for chain in plan]
        ended = 0
        while not all(one.done() for one in done):
            time.sleep(0.5)
            if sum(one.done() for one in done) > ended:
                ended = sum(one.done() for one in done)
                pack(setup.folder, out)
            if setup.left < CLOSING and not work.over.is_set():
                work.stop()
    report.row("errors", **figures(setup.folder))
    report.row("archives", names=pack(setup.folder, out))
