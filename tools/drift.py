"""How far two processes part from one over some steps, by precision and optimiser, and how far the weights went.

Small networks on gratings, those of tests/support/shared_trainings.py. Writes experiments/results/parting.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
os.environ["OMP_NUM_THREADS"] = "1"  # and so no threads that a fork would lose
sys.path.insert(0, str(ROOT))

import torch
import torch.nn.functional as F

from episodes import InputError
from metagvae.compute.device import Device
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from tests.support.ranks import succeeded, together
from tests.support.shared_trainings import WORKS, largest_difference, weights

METHODS = ("prototypes", "maml", "pretraining")
# precision, whether kinks are smoothed, optimiser, its factor on the rate (cosine from 1e-3), its other options
CASES: dict[str, tuple[str, bool, type[torch.optim.Optimizer], float, dict[str, float]]] = {
    "Adam, lr 1e-3, eps 1e-8 (as the package trains), in float64": ("float64", False, torch.optim.AdamW, 1.0, {}),
    "Adam, lr 1e-3, eps 1e-8 (as the package trains)": ("float32", False, torch.optim.AdamW, 1.0, {}),
    "Adam, lr 1e-4": ("float32", False, torch.optim.AdamW, 0.1, {}),
    "Adam, lr 1e-5": ("float32", False, torch.optim.AdamW, 0.01, {}),
    "Adam, eps 1e-5": ("float32", False, torch.optim.AdamW, 1.0, {"eps": 1e-5}),
    "Adam, eps 1e-3": ("float32", False, torch.optim.AdamW, 1.0, {"eps": 1e-3}),
    "SGD, lr 1e-2, momentum 0.9": ("float32", False, torch.optim.SGD, 10.0, {"momentum": 0.9}),
    "smooth network, Adam, eps 1e-8": ("float32", True, torch.optim.AdamW, 1.0, {}),
    "smooth network, Adam, eps 1e-3": ("float32", True, torch.optim.AdamW, 1.0, {"eps": 1e-3}),
    "smooth network, SGD, lr 1e-2, momentum 0.9": ("float32", True, torch.optim.SGD, 10.0, {"momentum": 0.9}),
}


@contextmanager
def optimiser(kind: type[torch.optim.Optimizer], factor: float, options: dict[str, float]) -> Iterator[None]:
    """Within it, training uses this optimiser in AdamW's place, ``factor`` times the rate."""

    class Scaled(kind):  # type: ignore[misc, valid-type]
        def step(self, closure: Callable[[], float] | None = None) -> Any:
            for group in self.param_groups:
                group["lr"] *= factor  # set anew by the loop ahead of each step
            return super().step(closure)

    def made(weights: Any, **settings: Any) -> torch.optim.Optimizer:
        shared = {name: settings[name] for name in ("lr", "weight_decay")}
        return Scaled(weights, **shared, **options)

    with patch("metagvae.training.loop.torch.optim.AdamW", made):
        yield


@contextmanager
def double() -> Iterator[None]:
    """Within it, networks are in float64."""
    lay_out = Device.layout
    wide = staticmethod(lambda images: lay_out(images).double())
    with patch.object(Device, "layout", wide), patch.object(Device, "place", lambda self, module: module.double()):
        yield


def parted(method: str, steps: int) -> tuple[float, float]:
    """The largest difference between one process and two in a weight or running statistic; how far a weight went."""
    with tempfile.TemporaryDirectory(prefix="parting-") as name:
        folder = Path(name)
        with optimiser(torch.optim.SGD, 0.0, {}):
            WORKS[method](folder / "beginning", 1)
        WORKS[method](folder / "one", steps)
        succeeded(together(lambda rank: WORKS[method](folder / "two", steps), folder))
        began, ended = weights(folder / "beginning"), weights(folder / "one")
        went = max(float((ended[key] - began[key]).abs().max()) for key in ended if "running" not in key)
        return largest_difference(folder / "one", folder / "two"), went


@contextmanager
def smoothed() -> Iterator[None]:
    """Within it, networks have softplus for their rectifiers and means for their max pooling: no kinks."""
    with (
        patch.object(F, "relu", lambda x, inplace=False: F.softplus(x, 10)),
        patch.object(F, "max_pool2d", F.avg_pool2d),
    ):
        yield


def row(name: str, steps: int) -> dict[str, Any]:
    precision, smooth, *settings = CASES[name]
    cells: dict[str, Any] = {"float32, but the first": name}
    with ExitStack() as changes:
        changes.enter_context(optimiser(*settings))
        if smooth:
            changes.enter_context(smoothed())
        if precision == "float64":
            changes.enter_context(double())
        for method in METHODS:
            try:
                apart, went = parted(method, steps)
                cells[method] = f"{apart:.1e} of {went:.2g}"
            except InputError:
                cells[method] = "not finite"
            print(name, method, cells[method], flush=True)
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="rows; others in the file stay")
    parser.add_argument("--json", type=Path, default=ROOT / "experiments" / "results" / "parting.json")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    old = json.loads(chosen.json.read_text(encoding="utf-8"))["rows"] if chosen.json.exists() else []
    rows = {next(iter(row.values())): row for row in old}
    about = f"{chosen.steps} steps: the largest difference in a weight or running statistic, of how far a weight went."
    for name in chosen.only:
        rows[name] = row(name, chosen.steps)
        ordered = [rows[name] for name in CASES if name in rows]
        write_json(chosen.json, {"about": about, "rows": ordered, "provenance": provenance()})


if __name__ == "__main__":
    main()
