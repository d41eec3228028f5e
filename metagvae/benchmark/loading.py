"""Opening a cached bank against decoding it, and what `import metagvae` costs."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from unittest.mock import patch

from episodes import ImageBank, InputError
from episodes.datasets import make_dataset
from metagvae.benchmark.rows import Context, Row, row_of
from metagvae.benchmark.timing import Samples, Way, by_turns

GROUP = "loading"
HEAVY = ("learn2learn", "gym", "matplotlib", "gradio", "easyfsl")


def bank_rows(context: Context) -> list[Row]:
    """Omniglot's training split, from the cache and from its zips."""
    name, label = "open Omniglot's training split from the cache", "decoding it"

    def load() -> ImageBank:
        return make_dataset("omniglot", root=context.root("omniglot")).load("train")

    with tempfile.TemporaryDirectory() as kept:
        with patch.dict(os.environ, METAGVAE_CACHE=kept):
            try:
                load()
            except InputError as error:
                return [Row(GROUP, name, label, "s", note=f"not measured: {str(error).split(': ')[0]}")]

        def cached() -> None:
            with patch.dict(os.environ, METAGVAE_CACHE=kept):
                load()

        def decoded() -> None:
            with tempfile.TemporaryDirectory() as empty, patch.dict(os.environ, METAGVAE_CACHE=empty):
                load()

        peer = Way(label, decoded, warm=lambda: None)
        samples = by_turns(context.clock, Way("ours", cached), peer, min(context.repeats, 2), 0.0)
    note = "the cache is mapped: pages come in as they are used; decoding writes the cache too"
    absolute = Row(GROUP, name, "", "s", ours=statistics.median(samples.ours), sense="seconds", wanted=0.1)
    return [row_of(samples, GROUP, name, label, "s", wanted=100.0, note=note), absolute]


def import_seconds(statement: str, processor: bool = False) -> float:
    """Seconds of a Python process that runs one statement: the wall clock's, or those that it computes."""

    def now() -> float:
        children = os.times()
        return children.children_user + children.children_system if processor else time.perf_counter()

    start = now()
    subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
    return now() - start


def loaded_with(statement: str) -> list[str]:
    """Which of the heavy packages a process has loaded after a statement."""
    question = f"{statement}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", question], check=True, capture_output=True, text=True)
    return done.stdout.split()


def import_row(context: Context, statement: str, name: str) -> Row:
    """A statement's process beside that of `import torch` alone."""
    import_seconds(statement)  # compiles what has not been compiled yet
    way = context.processor_time
    pairs = [(import_seconds(statement, way), import_seconds("import torch", way)) for _ in range(context.repeats)]
    ours, theirs = zip(*pairs, strict=True)
    found = loaded_with(statement)
    note = f"of {', '.join(HEAVY)} it loads {', '.join(found) or 'none'}"
    wanted = None if found else 2.0
    samples = Samples(ours, theirs)
    return row_of(samples, GROUP, name, "import torch", "s", "of it", wanted=wanted, note=note)


def rows(context: Context) -> list[Row]:
    """Every row on loading."""
    return [
        *bank_rows(context),
        import_row(context, "import metagvae", "import metagvae"),
        import_row(
            context, "import metagvae; metagvae.load_encoder; metagvae.GuidedVAE", "... and its classes, with torch"
        ),
    ]
