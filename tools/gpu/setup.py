"""Settings of every part, and where its rows go: a line of JSON each, on disk before the next one is measured."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from episodes import ImageBank, InputError
from episodes.datasets import make_dataset
from metagvae.benchmark.pictures import noise_bank

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Setup:
    """Settings of a part.

    Args:
        data: folder of the data sets, as ``METAGVAE_DATA``; None where there is none.
        work: folder that the part may fill.
        device: ``cuda`` or ``cpu``.
        reduced: a few steps of small networks, to see that everything runs.
        until: `time.time` at which the part will be stopped.
        trainings: file of the long trainings; None for the one of this folder.
    """

    data: str | None
    work: str
    device: str
    reduced: bool = False
    until: float = float("inf")
    trainings: str | None = None

    @property
    def folder(self) -> Path:
        return Path(self.work)

    @property
    def left(self) -> float:
        """Seconds until the part is stopped."""
        return self.until - time.time()

    @property
    def few(self) -> bool:
        """Whether some cases of each kind are enough, since nothing else can be found here."""
        return self.reduced and self.device == "cpu"

    def size(self, full: int, reduced: int) -> int:
        """One of two numbers of steps, tasks, pictures."""
        return reduced if self.reduced else full

    def root(self, name: str) -> str | None:
        """A data set's own folder."""
        return str(Path(self.data) / name) if self.data else None

    def bank(self, split: str = "train") -> ImageBank:
        """Omniglot's pictures, or noise of that shape where they are not at hand; the bank's ``dataset`` says which."""
        try:
            bank = make_dataset("omniglot", root=self.root("omniglot")).load(split)
        except InputError:
            bank = noise_bank(200, 20, split=split)
        return bank.subset(torch.arange(60)) if self.reduced else bank

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Report:
    """Rows of a part, written as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def row(self, name: str, **values: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row": name, **values}, default=str) + "\n")
        print(name, values, flush=True)

    def attempt(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        """The row of what ``work`` returns; of an exception, its last line and where it came from."""
        start = time.perf_counter()
        try:
            values = work()
        except Exception as error:
            frames = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
            traceback.print_exc()
            values = {"error": f"{type(error).__name__}: {str(error)[:600]}", "where": " > ".join(frames[-8:])}
        self.row(name, **values, row_seconds=round(time.perf_counter() - start, 2))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Rows that a part has written so far; a last line cut short is left out."""
    if not path.is_file():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]
