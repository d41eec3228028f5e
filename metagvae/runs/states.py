"""The states that a run resumes from: the newest two, each written whole or not at all and checked when read."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from episodes import InputError
from episodes.untrusted.torch_files import load_torch
from episodes.whole_files import replacing
from metagvae.storage.atomic_files import PatientWriter

KEPT = 2
_NAME = re.compile(r"step-(\d+)\.pt")


class States:
    """``step-0000400.pt`` and its like in one folder.

    Each holds tensors and plain containers, as `torch.save` writes them: a zip file, whose checksums tell when a
    bit has changed. torch itself does not look at them, `load_torch` does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}.pt"

    def steps(self) -> list[int]:
        """Steps of the states there are, newest first."""
        names = (_NAME.fullmatch(path.name) for path in self.folder.glob("step-*.pt"))
        return sorted((int(name[1]) for name in names if name), reverse=True)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Writes the state after ``step`` steps, then removes all but the newest two.

        Raises:
            InputError: if it cannot be written; those before are intact.
        """
        with replacing(self.path(step)) as file:
            writer = PatientWriter(file)
            torch.save({**state, "step": step}, cast(IO[bytes], writer))
            writer.finish()
        for old in self.steps()[KEPT:]:
            self.path(old).unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The newest state that can be read, on the CPU, or None if none was written yet.

        A damaged one is named on stderr and set aside as ``step-*.pt.damaged``.

        Raises:
            InputError: if there are states and none can be read.
        """
        steps = self.steps()
        damaged: list[str] = []
        for step in steps:
            try:
                state = self._read(step)
            except (MemoryError, KeyboardInterrupt):
                raise
            except Exception as error:  # zip files and torch raise many kinds
                first = (str(error).splitlines() or [type(error).__name__])[0]
                damaged.append(f"{self.path(step)} cannot be read ({first[:200]})")
                continue
            for newer, text in zip(steps, damaged, strict=False):
                print(f"{text}; going on from the older state of step {step}", file=sys.stderr)
                self.path(newer).replace(self.folder / f"{self.path(newer).name}.damaged")
            return state
        if damaged:
            raise InputError(
                f"{'; '.join(damaged)}. No state is left to go on from: they are damaged or not of this package. Start "
                "again in a new folder."
            )
        return None

    def _read(self, step: int) -> dict[str, Any]:
        state = load_torch(self.path(step))
        if not isinstance(state, dict) or state.get("step") != step:
            raise ValueError(f"it holds no state of step {step}")
        return state
