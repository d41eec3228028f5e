"""Torch's defaults while files are read and networks built: float32 on the processor, whatever the caller has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def plain_defaults() -> Iterator[None]:
    """A block, or a function it decorates, inside which new tensors are float32 on the CPU and no autocast is on.

    A caller's ``torch.device("meta")`` would leave weights without numbers; ``torch.set_default_dtype``, a default
    device or an autocast would make networks whose weights and images do not fit each other.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)
