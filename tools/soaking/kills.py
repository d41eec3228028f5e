"""SIGKILL: at random moments, and while a state is written."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import Any

from metagvae.runs.states import States
from metagvae.storage.atomic_files import is_remnant
from soaking.jobs import ended
from soaking.launches import Soak


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
