"""Several processes on one machine that work as one, as torchrun would start them."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from torch.distributed import TCPStore

from metagvae.compute.processes import join, leave
from tests.support.faults import Launch, begin, end

PATIENCE = 120  # seconds until processes that wait for each other for ever are ended


def together(work: Callable[[int], object], folder: Path, size: int = 2) -> list[Launch]:
    """How ``size`` processes ended that each did ``work(rank)``, by rank."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun's agent keeps one

    def launch(rank: int) -> Callable[[], None]:
        def go() -> None:
            signal.alarm(PATIENCE)
            faulthandler.dump_traceback_later(PATIENCE - 5, file=sys.stderr)  # where it hangs
            about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": store.port}
            os.environ.update({name: str(value) for name, value in about.items()})
            os.environ.update(
                MASTER_ADDR="127.0.0.1", TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="0"
            )
            join()
            work(rank)
            leave()

        return go

    folder.mkdir(parents=True, exist_ok=True)
    said = [folder / f"said-{rank}.txt" for rank in range(size)]
    processes = [begin(launch(rank), said[rank]) for rank in range(size)]
    return [end(process, text) for process, text in zip(processes, said, strict=True)]


def succeeded(launches: list[Launch]) -> None:
    assert [s.status for s in launches] == [0] * len(launches), "\n".join(s.said for s in launches)
