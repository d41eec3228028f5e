"""Torch's defaults while files are read and networks built: float32 on the processor, whatever the caller has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def ordinary_defaults() -> Iterator[None]:
    """A block, or a function it decorates, inside which new tensors are float32 on the processor.

    A caller's ``torch.device("meta")`` would leave weights without numbers, and a default of float64 a network that
    does not take this package's images. The caller's defaults are back afterwards.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(before)
