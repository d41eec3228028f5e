"""Operations of a step on an accelerator, recorded on torch's device ``meta``, which has no numbers to compute with."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).parents[2]

# what changes a tensor's shape, or makes one that nothing is written to yet: no kernel
VIEWS = {
    *("alias", "as_strided", "detach", "diagonal", "empty", "empty_like", "empty_strided", "expand", "lift_fresh"),
    *("narrow", "new_empty", "new_empty_strided", "permute", "reshape", "select", "set_", "slice", "split"),
    *("split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold", "unsafe_split", "unsqueeze", "view"),
    *("_reshape_alias", "_unsafe_view"),
}
# what cannot end before the device has told the host a number
READ_BACKS = {
    *("_local_scalar_dense", "nonzero", "nonzero_static", "masked_select", "_unique", "_unique2", "unique_dim"),
    *("unique_consecutive", "bincount", "equal", "is_nonzero", "_linalg_check_errors"),
}
# tensors made of Python numbers lie on the host first
FROM_NUMBERS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)


_ATEN = torch.library.Library("aten", "IMPL", "Meta")  # torch has no shape functions for these; kept for good
_ATEN.impl("_fused_adamw_.tensor_lr", lambda *_, **__: None)
_ATEN.impl("_sample_dirichlet", lambda concentration, generator=None: torch.empty_like(concentration))


def _on(values: object, kind: str) -> bool:
    return any(isinstance(value, Tensor) and value.device.type == kind for value in tree_leaves(values))


def _place() -> str:
    """The line of this repository that asked, the innermost; the engine's own has none."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and path != Path(__file__):
            return f"{path.relative_to(ROOT)}:{frame.lineno}"
    return "backward pass"


class Recorder(TorchDispatchMode):
    """Within it, operations are counted and waits for the host are noted.

    Attributes:
        waits: a sentence for each, ``what at file:line``.
        kernels: how often each operation ran that is no view; one of it is at least one kernel.
    """

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.device = device
        self.waits: list[str] = []
        self.kernels: Counter[str] = Counter()
        self._calls = _Calls(self)

    def __enter__(self) -> Recorder:
        super().__enter__()
        self._calls.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._calls.__exit__(*error)
        super().__exit__(*error)

    @property
    def total(self) -> int:
        return sum(self.kernels.values())

    def note(self, what: str) -> None:
        self.waits.append(f"{what} at {_place()}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        here = _on((args, kwargs), self.device)
        if name in READ_BACKS and here:
            self.note(name)
            if name == "_local_scalar_dense":
                dtype = args[0].dtype
                return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            picked = [index for index in args[1] if index is not None]
            if here and any(index.dtype in (torch.bool, torch.uint8) for index in picked):
                self.note("index by a mask")
            if here and _on(picked, "cpu"):
                self.note("index that lies on the host")
        elif name == "repeat_interleave" and here and kwargs.get("output_size") is None:
            self.note("repeat_interleave by a tensor")
        elif name in ("_to_copy", "copy_") and not (kwargs.get("non_blocking") or args[2:3] == (True,)):
            source = args[0] if name == "_to_copy" else args[1]
            source = source if isinstance(source, Tensor) else torch.empty(())  # a number of Python's
            target = (kwargs.get("device") or source.device) if name == "_to_copy" else args[0].device
            if source.device.type != target.type and self.device in (source.device.type, target.type):
                self.note("copy between host and device")
                if target.type == "cpu" and name == "_to_copy":  # there is nothing to copy
                    return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
        elif here and name not in VIEWS and _on((args, kwargs), "cpu"):
            self.note(f"a tensor of the host in {name}")
        out = func(*args, **kwargs)
        if name not in VIEWS and (here or _on(out, self.device)):
            self.kernels[name] += 1
        return out


class _Calls(TorchFunctionMode):
    """Calls from Python that come to the dispatcher in a form that no longer shows the copy in them."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in FROM_NUMBERS and isinstance(out, Tensor) and out.device.type == self.recorder.device:
            given = args[1] if func is Tensor.new_tensor else args[0]
            if not isinstance(given, Tensor):
                self.recorder.note("a tensor of Python numbers")
        if func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].device.type == self.recorder.device:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, list) for part in index):
                self.recorder.note("index by a list")
        return out


def recorded(work: Callable[[], object], device: str = "meta") -> Recorder:
    """Operations that ``work`` asks of the device."""
    with Recorder(device) as recorder:
        work()
    return recorder


def listed(waits: Iterable[str]) -> str:
    """For an assertion's message: each wait once, with how often."""
    return "\n".join(f"{times} x {wait}" for wait, times in Counter(waits).items())
