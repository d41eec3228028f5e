"""Launches of a run in processes of their own, and faults to end them with."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from episodes import InputError
from metagvae.runs.signals import STOPPED, Interrupted


@dataclass
class Launch:
    """How a process ended: its exit status, or the signal that ended it, negative; and what it said on stderr."""

    status: int
    said: str


def begin(work: Callable[[], object], said: Path) -> int:
    """Forks a process that does ``work``, stderr going to the file ``said``; returns its id."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        for number in (signal.SIGHUP, signal.SIGTERM):  # as in a terminal, even if nohup or a job started the tests
            signal.signal(number, signal.SIG_DFL)
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        work()
        status = 0
    except InputError as error:
        print(error, file=sys.stderr)
        status = 2
    except Interrupted as error:
        print(error, file=sys.stderr)
        status = STOPPED
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


def end(process: int, said: Path) -> Launch:
    _, code = os.waitpid(process, 0)
    return Launch(os.waitstatus_to_exitcode(code), said.read_text())


def launched(work: Callable[[], object], folder: Path) -> Launch:
    said = folder / "said.txt"
    return end(begin(work, said), said)


def dying_at(operation: int, folder: Path, work: Callable[[], object]) -> Callable[[], None]:
    """``work``, killed just before its file operation of that number under ``folder``: opening, renaming, removing
    a file, making a folder. Without so many, it ends well.
    """

    def watched() -> None:
        count = 0

        def hook(event: str, args: tuple) -> None:
            nonlocal count
            if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(args[0]).startswith(str(folder)):
                count += 1
                if count == operation:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()

    return watched


def with_files_up_to(size: int, work: Callable[[], object]) -> Callable[[], None]:
    """``work``, where no file can grow past ``size`` bytes."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        work()

    return limited
