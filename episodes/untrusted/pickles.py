"""Reads a pickle of numpy arrays and plain containers, and nothing else.

Other people's data sets come as pickles, and a pickle is a program: loading one the usual way runs whatever
its author wrote. Here the few names that such a file needs stand for small functions of this module, so that
not even numpy's own constructors are within the file's reach; any other name ends the load.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from episodes.errors import InputError

MAX_ITEMS = 2_000_000  # copied from one container to another: as many as can be read
MAX_COPIES = 2  # of every byte of the file, in all that is made of bytes again
MAX_DEPTH = 16
MAX_READS = 2_000_000  # a bit over a second of work; the largest file of use, miniImageNet's, takes a tenth of it
_CONTAINERS = (dict, list, tuple, set, frozenset, bytes, bytearray)
PLAIN = (type(None), bool, int, float, complex, str, set, frozenset, bytes, bytearray)
# numpy 1 wrote numpy.core, numpy 2 writes numpy._core
_NUMPY = ("numpy", *(f"numpy.{core}.{m}" for core in ("core", "_core") for m in ("multiarray", "numeric")))
_NUMBER = re.compile(r"[<>=|]?([biufc]\d{1,2}|[?SU]\d{0,6})")
# Opcodes that plain data never needs: extension registry, old-style objects, persistent ids, buffers outside,
# integers of more than 255 bytes.
_REFUSED = (
    pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST, pickle.OBJ, pickle.PERSID, pickle.BINPERSID,
    pickle.NEWOBJ_EX, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.LONG4,
)  # fmt: skip


class Refused(Exception):
    """What the file holds that is not read; no longer than a line, though a name in a file may be a megabyte."""

    def __init__(self, what: str) -> None:
        super().__init__(what[:200])


class _Dtype:
    """Stands for ``numpy.dtype``: numbers and fixed-length text only, no objects, no fields."""

    __slots__ = ("value",)

    def __init__(self, code: Any = None, *_: Any) -> None:
        code = code.decode("latin-1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise Refused(f"an array of type {code!r}")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags, ...): only the order is
        # taken; the flags could tell numpy to take bytes for pointers
        order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise Refused("an array with fields")
        self.value = self.value.newbyteorder(order)  # type: ignore[arg-type]


class _Array:
    """Stands for ``numpy.ndarray`` while its parts arrive."""

    __slots__ = ("value",)

    def __init__(self, *parts: Any) -> None:
        # a shape, as the true one takes, could ask for any amount of memory
        self.value: np.ndarray | None = parts[0] if parts and isinstance(parts[0], np.ndarray) else None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state if len(state) == 5 else (1, *state)
        self.value = _from_bytes(data, dtype, shape, "F" if fortran else "C")


def _from_bytes(data: Any, dtype: Any, shape: Any, order: str, axes: Any = None) -> np.ndarray:
    """The array over the very bytes of the file, not copied."""
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
        raise Refused("an array that is not made of numbers")
    flat = np.frombuffer(data, dtype=dtype.value) if dtype.value.itemsize else np.empty(0, dtype.value)
    array = flat.reshape(tuple(int(n) for n in shape), order="F" if order == "F" else "C")
    return array if axes is None else array.transpose(axes)


class PlainUnpickler(pickle._Unpickler):  # the one in C reserves memory for whatever memo index it is told
    dispatch = {  # noqa: RUF012
        code: load for code, load in pickle._Unpickler.dispatch.items() if code not in {op[0] for op in _REFUSED}
    }

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = _Bounded(file, size)
        super().__init__(self._file, encoding="latin-1")
        self._items, self._bytes = 0, 0
        self._most_bytes = MAX_COPIES * size + 2**16
        self._most_items = min(MAX_ITEMS, size)  # an item that is copied once takes at least a byte

    def _count(self, items: int) -> None:
        self._items += items
        if self._items > self._most_items:
            raise Refused(f"copies of more than {self._most_items:,} items")

    def _count_bytes(self, count: int) -> None:
        """For whatever makes new bytes out of some that the file holds once."""
        self._bytes += count
        if self._bytes > self._most_bytes:
            raise Refused(f"copies of more than {self._most_bytes:,} bytes")

    def _load_frame(self) -> None:
        """A frame is only a hint to read ahead; its contents are read, and counted, like any others."""
        (count,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self._file.expect(count)

    dispatch[pickle.FRAME[0]] = _load_frame  # type: ignore[assignment]

    def _load_bytearray(self) -> None:
        (count,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytearray(self.read(count)))  # type: ignore[attr-defined]

    # the original zeroes as many bytes as it is told before it looks for them
    dispatch[pickle.BYTEARRAY8[0]] = _load_bytearray  # type: ignore[assignment]

    stateful: tuple[type, ...] = (_Dtype, _Array)

    def _load_build(self) -> None:
        if not isinstance(self.stack[-2], self.stateful):  # type: ignore[attr-defined]
            raise Refused("a state for something that has none")
        state = self.stack[-1]  # type: ignore[attr-defined]
        if isinstance(self.stack[-2], _Array) and isinstance(state, tuple) and state:  # type: ignore[attr-defined]
            self.stack[-1] = (*state[:-1], self._encoded(state[-1]))  # type: ignore[attr-defined]
        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = _load_build  # type: ignore[assignment]

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()  # type: ignore[attr-defined]
        _keyed(self.stack[-1], [key])[key] = value  # type: ignore[attr-defined]

    def _load_setitems(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        _keyed(self.stack[-1], items[::2]).update(zip(items[::2], items[1::2], strict=True))  # type: ignore[attr-defined]

    def _load_additems(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        if not isinstance(self.stack[-1], set):  # type: ignore[attr-defined]
            raise Refused("members for something that is no set")
        self.stack[-1].update(_hashable(items))  # type: ignore[attr-defined]

    def _load_frozenset(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        self.append(frozenset(_hashable(items)))  # type: ignore[attr-defined]

    dispatch[pickle.SETITEM[0]] = _load_setitem  # type: ignore[assignment]
    dispatch[pickle.SETITEMS[0]] = _load_setitems  # type: ignore[assignment]
    dispatch[pickle.ADDITEMS[0]] = _load_additems  # type: ignore[assignment]
    dispatch[pickle.FROZENSET[0]] = _load_frozenset  # type: ignore[assignment]

    def _plain(self, kind: Callable[[Any], Any]) -> Callable[..., Any]:
        """``set(list)`` and the like; copying one long list over and over must not fill the memory."""

        def make(*arguments: Any) -> Any:
            items = arguments[0] if arguments else ()
            if len(arguments) > 1 or not isinstance(items, _CONTAINERS):
                raise Refused("a container made of something else")
            if isinstance(items, bytes | bytearray) and kind in (bytes, bytearray):
                self._count_bytes(len(items))
            else:
                self._count(len(items))
            if kind in (set, frozenset):
                _hashable(items)
            elif isinstance(kind, type) and issubclass(kind, dict):
                # the pairs of an ordered dict of Python 2
                pairs = [] if isinstance(items, dict) else [p for p in items if isinstance(p, list | tuple)]
                _hashable([key for key, _ in pairs])
            return kind(items)

        return make

    def _encode(self, text: Any, codec: Any = "latin1") -> bytes:
        """Stands for ``_codecs.encode``, by which protocol 2 writes bytes."""
        if codec not in ("latin1", "latin-1") or not isinstance(text, str):
            raise Refused("an unusual text encoding")
        return self._encoded(text)

    def _encoded(self, data: Any) -> Any:
        """Bytes for text, as Python 2 wrote them."""
        if not isinstance(data, str):
            return data
        self._count_bytes(len(data))
        return data.encode("latin-1")

    def _scalar(self, dtype: Any, data: Any) -> Any:
        if isinstance(dtype, _Dtype):
            self._count_bytes(dtype.value.itemsize)  # text of four bytes a letter, however often it is asked for
        return _from_bytes(self._encoded(data), dtype, (1,), "C")[0].item()

    def find_class(self, module: str, name: str) -> Any:
        kinds: dict[str, Callable[[Any], Any]] = {
            "set": set, "frozenset": frozenset, "list": list, "tuple": tuple, "dict": dict,
            "bytearray": bytearray, "bytes": bytes,
        }  # fmt: skip
        if module in ("builtins", "__builtin__") and name in kinds:
            return self._plain(kinds[name])
        if (module, name) == ("collections", "OrderedDict"):
            return self._plain(dict)
        if (module, name) == ("collections", "defaultdict"):
            return lambda *factory: {}
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        if module in _NUMPY:
            known: dict[str, Any] = {
                "dtype": _Dtype,
                "ndarray": _Array,
                "_reconstruct": lambda *parts: _Array(),
                "_frombuffer": lambda data, *rest: _Array(_from_bytes(self._encoded(data), *rest)),
                "scalar": self._scalar,
            }
            if name in known:
                return known[name]
        raise Refused(f"the name {module}.{name}")


def _hashable(keys: Iterable[Any]) -> Iterable[Any]:
    """``keys``, all of them text or small numbers: the hash of nested tuples, or many equal hashes, take for ever."""
    for key in keys:
        if not isinstance(key, str | bytes | bool) and not (isinstance(key, int) and abs(key) < 1 << 48):
            raise Refused(f"a {type(key).__name__} as a key")
    return keys


def _keyed(target: Any, keys: Iterable[Any]) -> dict[Any, Any]:
    if not isinstance(target, dict):
        raise Refused("items for something that is no dict")
    _hashable(keys)
    return target


class _Bounded:
    """A file that refuses to be asked for more than it holds, before any memory is set aside, or too often."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._reads = file, size, 0

    def expect(self, count: int) -> None:
        """Raises if so much does not follow."""
        if count > self._size - self._file.tell():
            raise EOFError

    def read(self, count: int) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise Refused(f"more than {MAX_READS:,} items")
        if count < 0:
            raise EOFError
        self.expect(count)
        return self._file.read(count)

    def readline(self) -> bytes:
        return self._file.readline(1 << 20)

    def readinto(self, buffer: bytearray) -> int:
        data = self.read(len(buffer))
        buffer[:] = data
        return len(data)


def unwrap(value: Any, done: dict[int, Any], plain: tuple[type, ...] = PLAIN, depth: int = 0) -> Any:
    """Arrays for their stand-ins, in dicts, lists and tuples.

    A part that is shared stays shared (``done``), so that a small file of lists of shared lists stays small.
    """
    if depth > MAX_DEPTH:
        raise Refused(f"containers more than {MAX_DEPTH} deep")
    if isinstance(value, _Array):
        if value.value is None:
            raise Refused("an array without contents")
        return value.value
    if isinstance(value, dict | list | tuple):
        if id(value) not in done:
            if isinstance(value, dict):
                done[id(value)] = {key: unwrap(item, done, plain, depth + 1) for key, item in value.items()}
            else:
                kind = list if isinstance(value, list) else tuple
                done[id(value)] = kind(unwrap(item, done, plain, depth + 1) for item in value)
        return done[id(value)]
    if isinstance(value, plain):
        return value
    raise Refused(f"a {type(value).__name__}")


def load_arrays(path: Path) -> Any:
    """The contents of a pickle file: dicts, lists, tuples, sets, text, numbers, arrays (often read-only).

    Files of Python 2 and 3, of numpy 1 and 2, and of every protocol are read. Nothing in the file is run.

    Raises:
        InputError: if the file is cut short or damaged, or holds anything else; the message names it.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            loaded = PlainUnpickler(file, size).load()
            return unwrap(loaded, {})
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
    except EOFError as error:
        raise InputError(f"{path} is cut short: it ends before its pickle does. Fetch it again.") from error
    except Refused as error:
        raise InputError(
            f"{path} holds {error}; only numpy arrays and plain containers are read from a pickle. Nothing "
            "in it was run; do not trust this file."
        ) from error
    except Exception as error:  # damaged bytes fail in as many ways as there are opcodes
        raise InputError(
            f"{path} is not a readable pickle of arrays ({type(error).__name__}: {str(error)[:200]}). Fetch it again."
        ) from error
