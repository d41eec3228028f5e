"""A CUDA graph's stand-in for any device: the operations of some work, done again on the same memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Terms = dict[str, Tensor]


class Tape(TorchDispatchMode):
    """Like a graph, it keeps Python's numbers as they were, and knows no work but that of the device.

    Reading a number back while it records is an error, as it is on a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self._made: set[int] = set()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def length(self) -> int:
        return len(self._calls)

    def warm(self, work: Callable[[], Terms]) -> Terms:
        return work()

    def record(self, work: Callable[[], Terms]) -> Terms:
        with self:
            terms = work()
        with torch.no_grad():
            for value, kept in self._before.values():  # nothing has been done yet
                value.copy_(kept)
        return terms

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, outs in self._calls:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(outs), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.untyped_storage()._cdata != new.untyped_storage()._cdata:
                        old.view(new.shape).copy_(new)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "_linalg_check_errors"):
            raise RuntimeError(f"{func} waits for the device, and it is recording")
        for place, argument in enumerate(func._schema.arguments):
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written or argument.name in ("running_mean", "running_var"):  # batch norm does not say so
                for value in (leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)):
                    memory = value.untyped_storage()._cdata
                    if memory not in self._made and value.data_ptr() not in self._before:
                        self._before[value.data_ptr()] = value, value.detach().clone()
        outs = func(*args, **kwargs)
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(outs):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                self._made.add(leaf.untyped_storage()._cdata)
        if func.overloadpacket.__name__ not in (
            "unsqueeze_",
            "squeeze_",
            "t_",
            "transpose_",
        ):  # shapes stay as they are
            self._calls.append((func, args, kwargs, outs))
        return outs
