"""Files of a run that are damaged between its launches."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metagvae.runs.states import States
from soaking.jobs import ended
from soaking.launches import Soak


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
        if rng.random() < 0.3:  # what a launch wrote after its last state, the last line cut short
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
