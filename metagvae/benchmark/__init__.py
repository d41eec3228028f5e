"""Speed beside the peers', each row by turns with its peer in one process.

Adding a row: a function in the file of its group. Adding a group: a file with ``GROUP`` and ``rows(context)``, and
a line in the table below.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from episodes import InputError
from metagvae.benchmark import ceilings, evaluation, loading, maml, minutes, pretraining, prototypes, sampling
from metagvae.benchmark.host import describe
from metagvae.benchmark.report import Report
from metagvae.benchmark.rows import Context, Row, Sizes

GROUPS: dict[str, Callable[[Context], list[Row]]] = {
    module.GROUP: module.rows
    for module in (ceilings, sampling, prototypes, maml, evaluation, pretraining, loading, minutes)
}
LONG = (minutes.GROUP,)  # run where they are named


def benchmark(
    context: Context, groups: Sequence[str] | None = None, tell: Callable[[str], None] = lambda _: None
) -> Report:
    """Measures the named groups of rows, in the table's order; None for all but the long ones.

    Args:
        tell: called with each group's name before it starts.

    Raises:
        InputError: at once, if a group is unknown.
    """
    for name in groups or ():
        if name not in GROUPS:
            raise InputError(f"the benchmark has no rows {name!r}; allowed: {', '.join(GROUPS)}.")
    chosen = [name for name in GROUPS if (name in groups if groups else name not in LONG)]
    host, start = describe(context.device), time.perf_counter()
    rows: list[Row] = []
    for name in chosen:
        tell(name)
        rows += GROUPS[name](context)
    host["clock"] = "processor seconds" if context.processor_time else "wall clock"
    return Report(rows, host, time.perf_counter() - start)


__all__ = ["GROUPS", "LONG", "Context", "Report", "Row", "Sizes", "benchmark"]
