"""Measurements of a run, step by step: lines of ``metrics.jsonl``, and the same for TensorBoard."""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from episodes import InputError
from episodes.untrusted.plain_files import parse_json
from episodes.whole_files import OUT_OF_DISK, write_beside
from metagvae.storage.atomic_files import make_folder

MAX_LINE_BYTES = 2**16


class MetricsLog:
    """Appends to ``metrics.jsonl`` and to a TensorBoard file in ``events/``.

    Args:
        folder: of the run.
        step: where the launch starts; lines past it, of a launch that crashed, are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / "metrics.jsonl"
        if os.path.lexists(self._path) and not self._path.is_file():  # a pipe would be waited on for ever
            raise InputError(f"{self._path} is not a regular file; remove it.")
        if self._path.is_file():
            kept = [line for line in _lines(self._path) if line["step"] <= step]
            write_beside(self._path, "".join(f"{json.dumps(line)}\n" for line in kept).encode())
        self._file = self._path.open("ab", buffering=0)
        self._events = _Events(folder / "events", step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes finite values; JSON has no others.

        Raises:
            InputError: if the line cannot be written; those before stay whole.
        """
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        line = (json.dumps({"step": step, **finite}) + "\n").encode()
        length = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            if written != len(line):  # the disk took a part; asking again tells why
                self._file.write(line[written:])
        except OSError as error:
            self._file.truncate(length)
            reason = "no room" if error.errno in OUT_OF_DISK else "it failed"
            raise InputError(
                f"cannot write {self._path}: {reason} ({error.strerror}). The last state is intact; make room, then go "
                "on with the same command and --run.resume auto."
            ) from error
        self._events.add(step, finite)

    def close(self) -> None:
        self._file.close()
        self._events.close()


class _Events:
    """A TensorBoard file, written at once and without a thread; what it says, ``metrics.jsonl`` says too."""

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        make_folder(folder)
        self._event = Event
        name = f"events.out.tfevents.{time.time_ns() // 1000:016d}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb", buffering=0)
        self._writer: Any = RecordWriter(self._file)
        self._write(step + 1, file_version="brain.Event:2")
        # readers then drop what a launch that crashed wrote past this step
        self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(step, summary=Summary(value=[Summary.Value(tag=n, simple_value=v) for n, v in values.items()]))

    def _write(self, step: int, **content: Any) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write(self._event(wall_time=time.time(), step=step, **content).SerializeToString())
        except OSError as error:
            self._writer = None
            print(f"TensorBoard's file ends at step {step} ({error.strerror}); training goes on", file=sys.stderr)

    def close(self) -> None:
        self._file.close()


def _lines(path: Path) -> Iterable[dict[str, float]]:
    with path.open("rb") as file:
        while text := file.readline(MAX_LINE_BYTES):
            try:
                line = parse_json(text.decode())
            except ValueError:  # cut short by a crash
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                yield line


def read_metrics(folder: str | Path) -> Iterable[dict[str, float]]:
    """The lines of ``metrics.jsonl``, in order; damaged ones are left out."""
    path = Path(folder) / "metrics.jsonl"
    if path.is_file():
        yield from _lines(path)
