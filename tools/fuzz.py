"""Gives corrupted and malicious files to every function of metagvae that takes a file, and counts what happens.

    python tools/fuzz.py [--count 1500] [--json experiments/results/fuzz.json]

Counted: code executed (a canary file that the payloads touch), files written outside the case's own folder,
unhandled errors (anything but `InputError`, a dead process included), hangs (over 2 s of the processor's time, or no
answer at all), and the peak of resident memory above what the warm process held. With --json the counts are kept
after every launch, and the next one goes on from there.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SECONDS, GIVE_UP, MEMORY = 2.0, 20, 2**30  # GIVE_UP: of the processor's time
SILENCE = 300  # seconds without an answer, however busy the machine is
ADDRESSES = 6 * 2**30  # a process may reserve this much above its start: the machine survives what a case asks for

Outcome = tuple[str, str, float, float, int]  # and message, seconds, CPU seconds, bytes above the start


def _resident(key: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split(f"{key}:")[1].split()[0])


def _worker(pipe: Connection, samples: Path, folder: Path) -> None:
    """Runs (entry, target, contents) cases as they come, in a process that has loaded everything before."""
    sys.path.insert(0, str(ROOT))
    sys.stdout = sys.stderr = open("/dev/null", "w")  # noqa: SIM115
    import torch

    from episodes import InputError
    from tests import hostile

    logging.disable()
    os.environ["METAGVAE_CACHE"] = str(folder / "cache")
    torch.set_num_threads(1)
    for entry in hostile.ENTRIES.values():  # warm: every good file is read once
        for target in entry.corrupts:
            hostile.place_case(entry, target, hostile.sample(samples, target).read_bytes(), samples, folder)
            entry.call(folder)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, used + ADDRESSES))
    pipe.send("ready")
    while True:
        name, target, what = pipe.recv()
        entry = hostile.ENTRIES[name]
        hostile.place_case(entry, target, what.read_bytes() if isinstance(what, Path) else what, samples, folder)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, start, cpu = _resident("VmRSS"), time.perf_counter(), time.process_time()
        outcome, message = "accepted", ""
        try:
            entry.call(folder)
        except InputError as error:
            outcome, message = "refused", str(error)
        except BaseException as error:
            outcome, message = "unhandled", f"{type(error).__name__}: {error}"
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        pipe.send((outcome, message, seconds, cpu, _resident("VmHWM") - before))


class Worker:
    """A warm process; another takes its place when it hangs or dies."""

    def __init__(self, samples: Path, folder: Path) -> None:
        self.samples, self.folder = samples, folder
        self.start()

    def start(self) -> None:
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(
            target=_worker, args=(other, self.samples, self.folder), daemon=True
        )
        self.process.start()
        other.close()
        self.pipe.recv()

    def run(self, case: tuple[str, str, Any]) -> tuple[str, str, float, float, int]:
        """Outcome, message, seconds, seconds of the processor, bytes above the start."""
        self.pipe.send(case)
        start, before = time.perf_counter(), self.spent()
        result: Outcome = ("hang", f"no answer in {GIVE_UP} s of the processor's time", SILENCE, GIVE_UP, 0)
        try:
            # a busy machine, or a process that was stopped for a while, is no hang
            while self.spent() - before < GIVE_UP and time.perf_counter() - start < SILENCE:
                if self.pipe.poll(1):
                    return self.pipe.recv()
        except EOFError:
            self.process.join()
            result = ("unhandled", f"the process died ({self.process.exitcode})", 0.0, 0.0, 0)
        self.stop()
        self.start()
        return result

    def spent(self) -> float:
        """Seconds of the processor that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


def empty_report() -> dict[str, Any]:
    return {"cases": 0, "hand_made": 0, "rows": [], "failures": []}


def _count(
    report: dict[str, Any], name: str, result: tuple[str, str, float, float, int], executed: bool, outside: bool
) -> bool:
    """Adds a case to the row of its entry; whether all was well."""
    outcome, _, seconds, cpu, peak = result
    row = next((row for row in report["rows"] if row["file"] == name), None)
    if row is None:
        row = {"file": name, "cases": 0, "refused": 0, "still good": 0, "executed": 0, "written outside": 0}
        row |= {"unhandled": 0, "hangs": 0, "longest, s": 0.0, "longest, CPU s": 0.0, "peak, MB": 0}
        report["rows"].append(row)
    hung = cpu > SECONDS
    for key, here in (
        ("cases", True),
        ("refused", outcome == "refused"),
        ("still good", outcome == "accepted"),
        ("executed", executed),
        ("written outside", outside),
        ("unhandled", outcome == "unhandled"),
        ("hangs", hung),
    ):
        row[key] += int(here)
    row["longest, s"] = max(row["longest, s"], round(seconds, 2))
    row["longest, CPU s"] = max(row["longest, CPU s"], round(cpu, 2))
    row["peak, MB"] = max(row["peak, MB"], peak // 10**6)
    report["cases"] += 1
    return not (executed or outside or hung or outcome == "unhandled" or peak > MEMORY)


def fuzz(report: dict[str, Any], count: int, minutes: float = 60, every: int = 1) -> dict[str, Any]:
    """Runs the hand-made cases (every ``every``-th), then random ones, up to ``count`` in all or for ``minutes``."""
    sys.path.insert(0, str(ROOT))
    from tests import hostile

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        work, canary = root / "work", root / "executed"
        hostile.make_samples(root / "samples")
        made = hostile.write_crafted(root / "samples", root / "crafted", root / "executed", every)
        work.mkdir()
        worker = Worker(root / "samples", work / "case")
        known = set(root.rglob("*"))
        start = time.perf_counter()
        while report["cases"] < max(count, len(made)) and time.perf_counter() - start < 60 * minutes:
            number = report["cases"]
            case = made[number] if number < len(made) else hostile.random_case(number, root / "samples")
            result = worker.run(case)
            executed = canary.exists()
            canary.unlink(missing_ok=True)
            shutil.rmtree(work / "case", ignore_errors=True)
            outside = [path for path in root.rglob("*") if path not in known]
            for path in outside:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            report["hand_made"] += number < len(made)
            if not _count(report, case[0], result, executed, bool(outside)):
                place = {"number": number, "entry": case[0], "target": case[1], "outcome": result[0]}
                report["failures"].append({**place, "message": result[1][:300], "CPU s": result[3], "bytes": result[4]})
                print(report["failures"][-1], file=sys.stderr, flush=True)
        worker.stop()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1500, help="cases in all, hand-made ones first")
    parser.add_argument("--minutes", type=float, default=60, help="end this launch after so long")
    parser.add_argument("--json", type=Path, help="file to go on from and to write the counts to")
    chosen = parser.parse_args()
    report = json.loads(chosen.json.read_text()) if chosen.json and chosen.json.exists() else empty_report()
    fuzz(report, chosen.count, chosen.minutes)
    from metagvae.runs.run import provenance
    from metagvae.storage.atomic_files import write_json

    report = {"provenance": {**provenance(), "command": f"python tools/fuzz.py --count {chosen.count}"}, **report}
    if chosen.json:
        write_json(chosen.json, report)
    print(f"{report['cases']} cases, {report['hand_made']} of them hand-made; {len(report['failures'])} failures")
    for row in report["rows"]:
        print("  ".join(f"{key}: {value}" for key, value in row.items()))
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
