"""Float32 where autocast would round: positions, solves and differences of near numbers."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_off(like: Tensor) -> AbstractContextManager[object]:
    """Within it, operations on the device of ``like`` compute in the precision of their inputs."""
    kind = like.device.type
    if not torch.amp.is_autocast_available(kind):  # meta has none to turn off
        return nullcontext()
    return torch.autocast(kind, enabled=False)
