"""Tasks solved side by side: a thread and a copy of the learner each, one core each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)
Part = TypeVar("Part")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "task", initializer=torch.set_num_threads, initargs=(1,))


def solve_in_threads(learner: Module, threads: int, work: Callable[[Module, int], Part]) -> list[Part]:
    """``[work(copy, 0), ..., work(copy, threads - 1)]``, each in a thread that computes on one core.

    Small batches leave cores idle between the parts of an operation; whole tasks do not. The copies hold the
    learner's weights as they are now, so what ``work`` differentiates by is the copy's.
    """
    copies = [copy.deepcopy(learner) for _ in range(threads)]
    before = torch.get_num_threads()
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def one(number: int) -> Part:
        with torch.autocast("cpu", dtype, enabled=enabled):
            return work(copies[number], number)

    try:
        return list(_pool(threads).map(one, range(threads)))
    finally:
        torch.set_num_threads(before)  # what the pool's threads set for themselves is also the next one's default
