"""Peak memory of one MAML step, run as a process of its own: `python -m metagvae.benchmark.memory '{...}'`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from episodes import InputError
from metagvae.benchmark.maml import make_step
from metagvae.benchmark.rows import Context, Sizes
from metagvae.compute.device import Device


def _status(field: str) -> int:
    """A size of this process that Linux's /proc/self/status names, in bytes.

    Raises:
        InputError: on a system without it.
    """
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError as error:
        raise InputError("peak memory is read from /proc, which this system does not have") from error
    return 1024 * int(text.split(f"{field}:")[1].split()[0])


def peak_above(work: Callable[[], object], device: torch.device) -> int:
    """Bytes that ``work`` takes at most above what is held before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # what was held once before is not the work's
    work()
    return _status("VmHWM") - before


def main(request: dict[str, object]) -> dict[str, int]:
    """Measures what ``maml.peak_memory`` asks for."""
    side, steps = str(request["side"]), int(str(request["steps"]))
    name = str(request["device"])
    # keeping freed memory is part of our way, and none of the peer's
    device = Device(Device.choose(name, "float32").device if side != "peer" else torch.device(name), autocast=False)
    data = Path(str(request["data"])) if request["data"] else None
    # a step of next to no size first: what torch loads at its first step is not the step's
    make_step(side, Context(device, data=data, sizes=Sizes(tasks=1, width=1)), 1)()
    sizes = Sizes(tasks=int(str(request["tasks"])), width=int(str(request["width"])))
    step = make_step(side, Context(device, data=data, sizes=sizes), steps)
    return {"bytes": peak_above(step, device.device)}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
