"""`metagvae benchmark`: speed beside the peers'."""

from __future__ import annotations

import sys

from episodes.paths import expanded
from metagvae.cli.outputs import check_writable


def benchmark(
    rows: list[str] | None = None,
    long: bool = False,
    out: str | None = None,
    data: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    repeats: int = 5,
    episodes: int = 10000,
    processor_time: bool = False,
) -> None:
    """Measure speed beside learn2learn, easyfsl and plain torch, each row by turns with its peer.

    Args:
        rows: ceilings | sampling | prototypes | maml | evaluation | pretraining | loading | minutes, one or more;
            leave out for all but minutes.
        long: measure minutes too, which trains a network for some minutes.
        out: JSON file to write the measurements to.
        data: folder that holds omniglot and mnist; leave out for METAGVAE_DATA. Rows that can do without use noise.
        device: auto | cpu | cuda.
        precision: auto | float32 | tf32 | bfloat16, for the rows that do not fix it.
        repeats: samples per way; the table has their medians.
        episodes: of the evaluation's row; with fewer, less of them share the embedding of the pictures.
        processor_time: count the seconds that the process computes, on one thread, and not the wall clock's: for a
            machine that has other work to do. Not for GPUs, and minutes stay on the wall clock.
    """
    import torch

    from episodes.errors import InputError
    from metagvae.benchmark import GROUPS, LONG, Context, Sizes
    from metagvae.benchmark import benchmark as measure
    from metagvae.compute.device import Device

    check_writable(out, inputs=[data])
    if processor_time:
        torch.set_num_threads(1)
    if repeats < 1 or episodes < 2:
        raise InputError(f"repeats must be at least 1 and episodes at least 2; received {repeats} and {episodes}.")
    where = Device.choose(device, precision)
    if processor_time and where.device.type != "cpu":
        raise InputError(f"processor_time measures a processor; received the device {where.device}.")
    on_gpu = where.device.type == "cuda"
    context = Context(
        where,
        repeats=repeats,
        processor_time=processor_time,
        data=expanded(data) if data is not None else None,
        sizes=Sizes(episodes=episodes, steps_of=(1, 16) if on_gpu else (1, 4), ceiling=8192 if on_gpu else 2048),
    )
    chosen = rows or [name for name in GROUPS if long or name not in LONG]
    report = measure(context, chosen, lambda name: print(f"measuring {name} ...", file=sys.stderr, flush=True))
    if out:
        report.save(expanded(out))
    print(report.table())
