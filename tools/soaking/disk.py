"""A disk without room."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from typing import Any

from metagvae.runs.states import States
from metagvae.storage.atomic_files import is_remnant
from soaking.jobs import ended
from soaking.launches import Soak


def refused(soak: Soak, before: list[int]) -> str | None:
    """Fault in how a launch ended that could not write; None if all is as it should be."""
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
