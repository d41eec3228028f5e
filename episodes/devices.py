"""Devices by the name that torch gives their tensors."""

from __future__ import annotations

import torch


def exact(device: torch.device | str) -> torch.device:
    """The device as a tensor there names it: ``cuda`` is ``cuda:0``, or the GPU that this process has taken.

    Two names of one device are unequal to torch until both are exact; compare no others.
    """
    return torch.empty(0, device=device).device
