"""Parts of `tools/gpu_minutes.py`: one file per part, each with ``run(setup, report)``."""

from __future__ import annotations

import importlib.util

NEEDED = ("torch", "numpy", "scipy", "yaml", "safetensors", "PIL")
OPTIONAL = ("jsonargparse", "easyfsl", "learn2learn", "triton", "numba")


def missing(names: tuple[str, ...]) -> list[str]:
    """Those of the packages that this Python does not find."""
    return [name for name in names if importlib.util.find_spec(name) is None]
