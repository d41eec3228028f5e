"""Stopping a run between two steps: Ctrl-C, SIGTERM, and SIGHUP of a terminal that goes."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Any

from metagvae.compute.processes import ranks

_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
STOPPED = 75  # of sysexits.h: failed for now, ask again


class Interrupted(Exception):
    """The run was asked to stop and wrote its state."""


class StopSignals:
    """Within it, the first Ctrl-C, SIGTERM or SIGHUP sets ``asked``; a second one stops at once, but for SIGHUP."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if number == getattr(signal, "SIGHUP", None):
                return  # the shell and the system both send one as a terminal goes
            if number == signal.SIGTERM and ranks().size > 1:
                return  # a scheduler ends each process and torchrun too, which then ends its processes
            raise KeyboardInterrupt
        self.asked = True
        if not ranks().main:
            return
        # not print: the signal may come while something is being printed
        with suppress(OSError):  # the terminal may be gone
            os.write(2, b"\nstopping after this step; once more stops at once\n")

    def __enter__(self) -> StopSignals:
        try:
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and background jobs have it
                    self._before[number] = signal.signal(number, self._handle)
        except ValueError:  # not the main thread: the caller owns the signals
            pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
