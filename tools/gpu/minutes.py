"""Time from a command to 2.0 % error on Omniglot, start of the process and opening of the pictures included."""

from __future__ import annotations

from gpu.setup import REPOSITORY, Report, Setup
from gpu.speed import context_of
from metagvae.benchmark import minutes

CONFIGS = ("fast-gpu.yaml", "fast.yaml")


def run(setup: Setup, report: Report) -> None:
    context, changes = context_of(setup), ("--optim.steps", "4", "--encoder.width", "8") if setup.reduced else ()
    setup.bank("train"), setup.bank("test")  # decoded once: what is timed opens the cache
    for name in CONFIGS:
        path = REPOSITORY / "configs" / "omniglot" / name
        report.attempt(
            name,
            lambda path=path: {"rows": [row.to_dict() for row in minutes.rows(context, path, changes)]},  # type: ignore[misc]
        )
