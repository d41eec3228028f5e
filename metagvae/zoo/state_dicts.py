"""State dicts in a file of weights: which ones it holds, and their weights under other names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from episodes import InputError
from episodes.untrusted.torch_files import load_torch
from metagvae.storage.tensors import read_tensors

MAX_SHOWN = 10
V = TypeVar("V")


def is_safetensors(path: Path) -> bool:
    """Whether a file is of safetensors, by its first bytes: a length, then JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and not head.startswith(b"PK")


def read_state_dicts(path: Path) -> dict[str, dict[str, Tensor]]:
    """Every state dict in a safetensors or a torch file, by the keys that lead to it, such as ``model.encoder``.

    A state dict is a mapping that holds tensors of at least one dimension under text keys. The file's own level is
    called ``""``. Moments of an optimiser, which are kept by number, are none.

    Raises:
        InputError: if the file is missing, damaged, holds code, or holds no state dict.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a .safetensors or a torch file.")
    if is_safetensors(path):
        return {"": read_tensors(path)}
    content = load_torch(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not a state dict.")
    found: dict[str, dict[str, Tensor]] = {}
    for keys, tensors in _state_dicts(content, (), set()):
        name = ".".join(keys)
        if name in found:
            raise InputError(f"{path} holds two state dicts that {name[:100]!r} could mean; save one of them alone.")
        found[name] = tensors
    if not found:
        names = listed([str(key)[:40] for key in content])
        raise InputError(f"{path} holds no tensors; its keys are {names or 'none'}.")
    return found


def _state_dicts(
    content: Mapping[Any, Any], keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    if id(content) in seen:  # one state dict under two keys is one
        return
    seen.add(id(content))
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if any(value.ndim for value in tensors.values()):
        yield keys, tensors
    for key, value in content.items():
        if isinstance(value, Mapping) and isinstance(key, str):
            yield from _state_dicts(value, (*keys, key), seen)


def listed(names: Sequence[str], most: int = MAX_SHOWN) -> str:
    """Names in one line, the first ``most`` of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def renamed(weights: Mapping[str, V], prefixes: Mapping[str, str]) -> dict[str, V]:
    """Weights under new names: the longest matching prefix replaced; an empty replacement removes it.

    Raises:
        InputError: if two get the same name.
    """
    result: dict[str, V] = {}
    for name, value in weights.items():
        target = _new_name(name, prefixes)
        if target in result:
            raise InputError(f"two weights get the name {target!r} by the prefix map; make the prefixes distinct.")
        result[target] = value
    return result


def _new_name(name: str, prefixes: Mapping[str, str]) -> str:
    prefix = max((p for p in prefixes if name.startswith(p)), key=len, default=None)
    return name if prefix is None else prefixes[prefix] + name[len(prefix) :]


def without(weights: Mapping[str, V], prefixes: Mapping[str, str], patterns: Sequence[str]) -> dict[str, V]:
    """The weights that no pattern matches, neither by the name they have nor by the one that ``prefixes`` give.

    Args:
        patterns: such as ``decoder.*``; ``*``, ``?`` and ``[...]`` as in the names of files.

    Raises:
        InputError: if a pattern or a prefix matches nothing.
    """
    both = {name: (name, _new_name(name, prefixes)) for name in weights}
    unused = [f"--prefix {p!r}" for p in prefixes if not any(name.startswith(p) for name in weights)]
    unused += [f"--drop {p!r}" for p in patterns if not any(fnmatchcase(n, p) for pair in both.values() for n in pair)]
    if unused:
        raise InputError(f"{unused[0]} matches none of the {len(weights)} weights, such as {listed(list(weights), 3)}.")
    dropped = {name for name, pair in both.items() if any(fnmatchcase(n, p) for n in pair for p in patterns)}
    return {name: value for name, value in weights.items() if name not in dropped}
