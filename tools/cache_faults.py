"""Kills decoders, lets users share a cache, flips bits in its entries, and counts what is left behind or served wrong.

    python tools/cache_faults.py [--count 200] [--seed 0] [--json experiments/results/cache_faults.json]

Every case has a cache folder of its own, and ends with a reader that must get the bank as it was decoded, pixel for
pixel, and leave nothing unfinished in the cache. What a user's killed process left, that user's next one removes. Two
users need root, which can become both.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from episodes import ImageBank
from episodes.datasets import cache_entry
from episodes.datasets.cache import cached_classes
from episodes.datasets.cache_entry import Decoding

CLASSES, SECONDS = 12, 0.12  # and how long decoding them takes
KEY = {"dataset": "faults", "split": "train"}
USERS = (61_001, 61_002, 61_003)
REGIONS = ("header of the pixels", "pixels", "class names", "offsets", "split", "other fields", "checksums")
DAMAGES = ("bit", "bit", "byte", "zeros", "cut")


def _images(number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (5, 1, 28, 28), generator=generator).to(torch.uint8)


def _decode(seconds: float, log: Path) -> Decoding:
    with log.open("a") as file:
        file.write("x")
    for number in range(CLASSES):
        time.sleep(seconds / CLASSES)
        yield f"class {number}", _images(number)
    return {"dataset": "faults", "split": "train", "polarity": "ink", "notes": ("a note",)}


def digest(bank: ImageBank) -> str:
    """SHA-256 of everything in a bank."""
    fields = [bank.class_names, bank.offsets.tolist(), bank.dataset, bank.split, bank.polarity, bank.notes]
    return hashlib.sha256(bank.images[:].numpy().tobytes() + repr(fields).encode()).hexdigest()


def _expected() -> str:
    counts = torch.arange(CLASSES + 1) * 5
    names = tuple(f"class {number}" for number in range(CLASSES))
    images = torch.cat([_images(number) for number in range(CLASSES)])
    return digest(ImageBank(images, counts, names, "faults", "train", "ink", {}, ("a note",)))


class Child:
    """A process, perhaps another user's, that opens the bank and tells its digest."""

    def __init__(self, seconds: float, log: Path, user: int | None = None, mask: int = 0o022) -> None:
        self._answer, answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            said = "killed"
            try:
                os.umask(mask)
                if user is not None:
                    os.setgroups([])
                    os.setgid(user)
                    os.setuid(user)
                cache_entry._verified.clear()
                said = digest(cached_classes(KEY, lambda: _decode(seconds, log)))
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            finally:
                os.write(answer, said.encode())
                os._exit(0)
        os.close(answer)

    def kill(self, kind: int) -> None:
        os.kill(self.pid, kind)

    def wait(self) -> str:
        """Its digest, or its error; empty if it was killed."""
        with os.fdopen(self._answer) as file:
            said = file.read()
        os.waitpid(self.pid, 0)
        return said


def _kill_one(rng: random.Random, folder: Path, log: Path) -> dict[str, Any]:
    """One or two decoders at once, the first killed somewhere on its way."""
    kind = rng.choice((signal.SIGKILL, signal.SIGTERM))
    after = rng.uniform(0, 1.3 * SECONDS)
    first = Child(SECONDS, log)
    other = Child(SECONDS, log) if rng.random() < 0.3 else None
    time.sleep(after)
    first.kill(kind)
    said = [first.wait()]
    if other is not None:
        said.append(other.wait())
    return {"signal": int(kind), "after": round(after, 3), "with another": other is not None, "said": said}


def _two_users(rng: random.Random, folder: Path, log: Path) -> dict[str, Any]:
    """Two users at once or one after the other, with masks of their own, one of them perhaps killed."""
    masks = [rng.choice((0o022, 0o002, 0o077)) for _ in range(2)]
    together, killed = rng.random() < 0.6, rng.random() < 0.4
    said = []
    first = Child(SECONDS, log, USERS[0], masks[0])
    if not together and not killed:
        said.append(first.wait())
    second = Child(SECONDS, log, USERS[1], masks[1])
    if killed:
        time.sleep(rng.uniform(0, SECONDS))
        first.kill(signal.SIGKILL)
    said += [second.wait()] if not together and not killed else [first.wait(), second.wait()]
    return {"masks": [f"{mask:03o}" for mask in masks], "together": together, "killed": killed, "said": said}


def _span(region: str, entry: Path) -> tuple[Path, int, int]:
    """The file of a region, and where it begins and ends there."""
    if "pixels" in region:
        path = entry / "images.npy"
        return (path, 0, 128) if region.startswith("header") else (path, 128, path.stat().st_size)
    if region == "checksums":
        return entry / "SHA256SUMS", 0, (entry / "SHA256SUMS").stat().st_size
    text = (entry / "bank.json").read_text()
    if region == "other fields":
        return entry / "bank.json", 0, len(text)
    start = text.index({"class names": '"class_names"', "offsets": '"offsets"', "split": '"split": "'}[region])
    return entry / "bank.json", start, text.index("]" if region != "split" else ",", start)


def _damage(rng: random.Random, folder: Path, log: Path) -> dict[str, Any]:
    """A whole entry, then a bit, a byte, a run of zeros or a missing end in one of its regions."""
    said = [Child(0, log).wait()]
    (entry,) = folder.glob("faults-*")
    region, kind = rng.choice(REGIONS), rng.choice(DAMAGES)
    path, start, end = _span(region, entry)
    data = bytearray(path.read_bytes())
    before = bytes(data)
    at = rng.randrange(start, end)
    if kind == "bit":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        data[at] = (data[at] + rng.randrange(1, 256)) % 256
    elif kind == "zeros":
        data[at : min(end, at + 512)] = bytes(min(end, at + 512) - at)
    else:
        del data[at:]
    times = path.stat()
    path.write_bytes(data)
    if rng.random() < 0.5:  # as a disk's own error would have it
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return {"region": region, "damage": kind, "at": at, "changed": bytes(data) != before, "said": said}


KINDS: dict[str, Callable[[random.Random, Path, Path], dict[str, Any]]] = {
    "kill": _kill_one, "two users": _two_users, "damage": _damage,
}  # fmt: skip


def one_case(number: int, seed: int, kind: str, expected: str) -> dict[str, Any]:
    """A case by its number: what was done, and whether what followed was right."""
    rng = random.Random(f"{seed} {number}")
    root = Path(tempfile.mkdtemp(prefix="cache-faults-"))
    before = os.environ.get("METAGVAE_CACHE")
    try:
        root.chmod(0o755)
        folder, log = root / "cache", root / "log"
        folder.mkdir()
        folder.chmod(0o1777)
        log.touch()
        log.chmod(0o666)
        os.environ["METAGVAE_CACHE"] = str(folder)
        case = KINDS[kind](rng, folder, log)
        decoded = len(log.read_text())
        reader = Child(0, log, USERS[2] if kind == "two users" else None).wait()
        again = Child(0, log, USERS[2] if kind == "two users" else None)
        said = [text for text in case.pop("said") if text]  # nothing of those that were killed
        said += [reader, again.wait()]
        fresh = len(log.read_text()) - decoded
        if case.get("killed"):  # what it left is its own, and only that user may remove it: by the next start
            said.append(Child(0, log, USERS[0]).wait())
        left = sorted(path.name for path in folder.iterdir() if not path.name.startswith("faults-"))
        case |= {
            "number": number, "kind": kind, "decoded": decoded, "decoded for the readers": fresh,
            "wrong": sum(text != expected for text in said), "left": left,
            "entries": len(list(folder.glob("faults-*"))),
        }  # fmt: skip
        if case["wrong"]:
            case["said"] = [text for text in said if text != expected]
        return case
    finally:
        if before is None:
            del os.environ["METAGVAE_CACHE"]
        else:
            os.environ["METAGVAE_CACHE"] = before
        shutil.rmtree(root, ignore_errors=True)


def is_right(case: dict[str, Any]) -> bool:
    """Whether nothing wrong was served, nothing left, and a reader's second look found the bank decoded.

    A changed entry must have been decoded again, once; entries of users' own may stand beside a closed one.
    """
    mended = case["kind"] != "damage" or case["decoded for the readers"] == int(case["changed"])
    return not case["wrong"] and not case["left"] and case["decoded for the readers"] <= 1 and mended


def run(count: int, seed: int = 0) -> dict[str, Any]:
    """So many cases, of each kind in turn."""
    kinds = [kind for kind in KINDS if kind != "two users" or (hasattr(os, "getuid") and os.getuid() == 0)]
    expected = _expected()
    cases = [one_case(number, seed, kinds[number % len(kinds)], expected) for number in range(count)]
    rows = [
        {
            "kind": kind,
            "cases": sum(case["kind"] == kind for case in cases),
            "served wrong": sum(case["wrong"] for case in cases if case["kind"] == kind),
            "left behind": sum(len(case["left"]) for case in cases if case["kind"] == kind),
            "not right": sum(not is_right(case) for case in cases if case["kind"] == kind),
        }
        for kind in kinds
    ]
    regions = {region: sum(case.get("region") == region for case in cases) for region in REGIONS}
    failures = [case for case in cases if not is_right(case)]
    return {"cases": count, "rows": rows, "regions": regions, "failures": failures}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file to write the counts to")
    chosen = parser.parse_args()
    report = run(chosen.count, chosen.seed)
    if chosen.json:
        from metagvae.runs.run import provenance
        from metagvae.storage.atomic_files import write_json

        command = f"python tools/cache_faults.py --count {chosen.count} --seed {chosen.seed}"
        report = {"provenance": {**provenance(), "command": command}, **report}
        write_json(chosen.json, report)
    for row in report["rows"]:
        print("  ".join(f"{key}: {value}" for key, value in row.items()))
    for case in report["failures"]:
        print(case, file=sys.stderr)
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
