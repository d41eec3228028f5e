"""Reads what `torch.save` wrote, without torch's unpickler: tensors and plain containers, nothing else.

`torch.load(weights_only=True)` ran a stranger's code in torch before 2.6 (CVE-2025-32434), reserves what a
forged shape asks for, and does not look at checksums. The format is a zip of stored members: a pickle, read here
by `episodes.untrusted.pickles`, and the bytes of each storage, whose CRC-32 `zipfile` checks.
"""

from __future__ import annotations

import io
import math
import pickle
import stat
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from episodes import InputError
from episodes.torch_defaults import plain_defaults
from episodes.untrusted.pickles import PLAIN, PlainUnpickler, Refused, unwrap

MAX_BYTES = 4 * 2**30
MAX_PICKLE_BYTES = 8 * 2**20
MAX_MEMBERS = 100_000
_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


class _StateDict(dict[str, Any]):
    """Stands for the ordered dict of a state dict, whose ``_metadata`` nobody here needs."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(PlainUnpickler):
    dispatch = {**PlainUnpickler.dispatch, pickle.BINPERSID[0]: pickle._Unpickler.dispatch[pickle.BINPERSID[0]]}  # noqa: RUF012
    stateful = (*PlainUnpickler.stateful, _StateDict)

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        data = _read(archive, f"{root}data.pkl", MAX_PICKLE_BYTES)
        super().__init__(io.BytesIO(data), len(data))
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return self._plain(_StateDict)
        if (module, name) == ("torch", "Size"):
            return self._plain(tuple)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage as a flat tensor; ``pid`` is ("storage", type, key, device, numbers)."""
        kind, dtype, key, _, numbers = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise Refused(f"a {type(kind).__name__} for a storage")
        if key not in self._storages:
            data = _read(self._archive, f"{self._root}data/{key}", MAX_BYTES)
            flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            if len(flat) != numbers:
                raise Refused(f"a storage of {len(flat):,} numbers that should have {numbers!r}")
            self._storages[key] = flat
        return self._storages[key]


def _read(archive: zipfile.ZipFile, name: str, most: int) -> bytearray:
    member = archive.getinfo(name)
    if member.file_size > most:
        raise Refused(f"a member of {member.file_size:,} bytes")
    data = bytearray(member.file_size)
    with archive.open(member) as stream:
        if stream.readinto(data) != member.file_size or stream.read(1):  # type: ignore[attr-defined]
            raise EOFError
    return data


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage that stays inside it and shows no more numbers than it has."""
    places = [offset, *size, *stride]
    if not isinstance(storage, Tensor) or len(size) != len(stride) or not all(type(n) is int for n in places):
        raise Refused("a tensor that is not made of a storage")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    inside = min(places) >= 0 and last < len(storage) and math.prod(size) <= len(storage)
    if not inside and math.prod(size):
        raise Refused(f"a tensor of shape {list(size)} in a storage of {len(storage):,} numbers")
    return storage.as_strided(size, stride, offset) if math.prod(size) else storage[:0].reshape(size)


def _open(path: Path | io.BytesIO, size: int) -> tuple[zipfile.ZipFile, str]:
    """The archive and the name of the folder in it; it cannot unpack to more than it holds."""
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    roots = [m.filename[: -len("data.pkl")] for m in members if m.filename.endswith("/data.pkl")]
    if len(roots) != 1 or len(members) > MAX_MEMBERS:
        raise Refused("no single data.pkl")
    if f"{roots[0]}constants.pkl" in archive.namelist():
        raise Refused("a TorchScript program, which torch.jit.save wrote")
    if any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in members):
        raise Refused("packed or encrypted members")
    if sum(m.file_size for m in members) > size:
        raise Refused("members that overlap")
    if f"{roots[0]}byteorder" in archive.namelist() and _read(archive, f"{roots[0]}byteorder", 16) != b"little":
        raise Refused("numbers of another byte order")
    return archive, roots[0]


@plain_defaults()
def load_torch(path: Path | io.BytesIO) -> Any:
    """Content of a `torch.save` file: dicts, lists, tuples, text, numbers and dense CPU tensors. Nothing in it is run.

    Files of torch 1.6 and later are read. Tensors that shared a storage share it still.

    Raises:
        InputError: if the file is missing, damaged, of an older format, or holds anything else.
    """
    try:
        if isinstance(path, io.BytesIO):
            regular, size = True, len(path.getbuffer())
        else:  # a pipe would be waited on for ever
            regular, size = stat.S_ISREG(path.stat().st_mode), path.stat().st_size
        if not regular or size > MAX_BYTES:
            raise Refused(f"no regular file of at most {MAX_BYTES:,} bytes")
        archive, root = _open(path, size)
        with archive:
            return unwrap(_Unpickler(archive, root).load(), {}, (*PLAIN, Tensor))
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path} is not a file of torch 1.6 or later, or it is damaged ({error}). Nothing in it was run; if it is "
            "older, load and save it again, best as safetensors."
        ) from error
    except Refused as error:
        raise InputError(
            f"{path} holds {error}; only tensors and plain containers are read. Nothing in it was run. Save its "
            "state_dict() alone, best as safetensors."
        ) from error
    except Exception as error:  # damaged bytes fail in as many ways as there are opcodes
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {str(error)[:200]}); it is damaged or not a file of "
            "torch. Nothing in it was run."
        ) from error
