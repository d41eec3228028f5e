"""Pickles, and what torch makes of them, that would run code, never end, or fill the memory."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from tests.hostile.archives import forged, make_zip


class Payload:
    """Runs a command when unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def _hash_bomb() -> bytes:
    """A dict whose key is a tuple of tuples of tuples: its hash takes 2 ** 60 steps."""
    return b"\x80\x02}" + b")" + b"q\x01h\x01\x86" * 60 + b"K\x01s."


def _nested(kind: bytes, depth: int) -> bytes:
    return b"\x80\x02" + kind * depth + b"." if kind != b"(" else b"\x80\x02" + b"(" * depth + b"t" * depth + b"."


_MEGABYTE = 2**20


def _memoised(value: bytes) -> bytes:
    """The value at index 1 of the memo, and nothing on the stack."""
    return b"\x80\x02" + value + b"r\x01\0\0\x000"


def copying_pickles() -> dict[str, bytes]:
    """By name: a megabyte or less, whose copies are gigabytes."""
    data = _memoised(b"B" + struct.pack("<L", _MEGABYTE) + bytes(_MEGABYTE))
    text = _memoised(b"X" + struct.pack("<L", _MEGABYTE) + bytes(_MEGABYTE))
    items = _memoised(b"](" + b"N" * _MEGABYTE + b"e")
    pairs = _memoised(b"](" + b"K\x01N\x86" * (_MEGABYTE // 4) + b"e")
    get = b"j\x01\0\0\0"
    words = b"cnumpy\ndtype\nX\x07\0\0\0U262144\x85Rr\x02\0\0\x000"
    octets = b"cnumpy\ndtype\nX\x02\0\0\0u1\x85Rr\x02\0\0\x000"
    shape = b"J\0\0\x10\x00\x85"
    return {
        "bytearrays of bytes": data + b"](" + (b"cbuiltins\nbytearray\n" + get + b"\x85R") * 4000 + b"e.",
        "lists of bytes": data + b"](" + (b"cbuiltins\nlist\n" + get + b"\x85R") * 400 + b"e.",
        "bytes of text": text + b"](" + (b"c_codecs\nencode\n" + get + b"X\6\0\0\0latin1\x86R") * 4000 + b"e.",
        "arrays of text": text + octets + b"](" + (
            b"cnumpy.core.multiarray\n_reconstruct\n)R" + b"(K\x01" + shape + b"j\x02\0\0\0\x89" + get + b"tb"
        ) * 4000 + b"e.",
        "arrays from buffers of text": text + octets + b"](" + (
            b"cnumpy._core.numeric\n_frombuffer\n(" + get + b"j\x02\0\0\0" + shape + b"X\x01\0\0\0CtR"
        ) * 4000 + b"e.",
        "text of scalars": data + words + b"](" + (
            b"cnumpy.core.multiarray\nscalar\nj\x02\0\0\0" + get + b"\x86R"
        ) * 4000 + b"e.",
        "lists of lists": items + b"](" + (b"cbuiltins\nlist\n" + get + b"\x85R") * 400 + b"e.",
        "dicts of pairs": pairs + b"](" + (b"ccollections\nOrderedDict\n" + get + b"\x85R") * 4000 + b"e.",
    }  # fmt: skip


def hostile_pickles(canary: Path) -> list[bytes]:
    laughs = b"\x80\x02]" + b"q\x00]" + b"".join(b"(h%ch%ce" % (0, 0) for _ in range(40)) + b"."
    return [
        *(pickle.dumps(Payload(canary), protocol) for protocol in (0, 2, 4, 5)),
        *(
            pickle.dumps({"image_data": Payload(canary), "class_dict": {}, "state_dict": {}}, protocol)
            for protocol in (0, 2, 5)
        ),
        f"cos\nsystem\n(S'touch {canary}'\ntR.".encode(),
        f"(S'touch {canary}'\nios\nsystem\n.".encode(),
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x0bexit('ran')\x85R.",
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR.",
        b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00a\x85R.",
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".",
        b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"\xff" * 100 + b".",
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"\x80\x02]r\xff\xff\xff\x7f.",
        b"L" + b"9" * 100_000 + b"L\n.",
        _hash_bomb(),
        laughs,
        _nested(b"(", 100_000),
        _nested(b"]", 100_000),
        b"\x80\x02" + b"N" * 5_000_000 + b".",
        b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86tR.",
        b"\x80\x02}("
        + b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(50_000))
        + b"u.",
        b"",
        b".",
        b"\x80",
        b"\x80\xff.",
        *copying_pickles().values(),
    ]


def hostile_torch(good: bytes, canary: Path) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    root = members[0][0].split("/")[0]

    def with_pickle(data: bytes, kind: int = zipfile.ZIP_STORED) -> bytes:
        return make_zip([(name, data if name.endswith("data.pkl") else old) for name, old in members], kind)

    program = dict(members)[f"{root}/data.pkl"]
    sizes = [
        program.replace(b"K\x04", new, 1)
        for new in (b"J\xff\xff\xff\x7f", b"K\xff", b"J\xff\xff\xff\xff", b"\x8a\x08" + b"\xff" * 7 + b"\x7f")
    ]
    legacy, tar, script = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.zeros(3), "b": Payload(canary)}, legacy, _use_new_zipfile_serialization=False)
    with tarfile.open(fileobj=tar, mode="w") as archive_tar:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(Payload(canary))
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive_tar.addfile(info, io.BytesIO(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its age
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    whole = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2), whole)
    return [
        *(with_pickle(data) for data in [*hostile_pickles(canary), *sizes]),
        with_pickle(program, zipfile.ZIP_DEFLATED),
        make_zip([*members, ("archive/data/9", b"\0" * 100_000_000)]),
        make_zip(members[:-4], zipfile.ZIP_STORED),
        make_zip([m for m in members if "/data/" not in m[0]], zipfile.ZIP_STORED),
        make_zip([(n, d[:-1] if "/data/" in n else d) for n, d in members], zipfile.ZIP_STORED),
        make_zip([(n, d + b"\0" * 4 if "/data/" in n else d) for n, d in members], zipfile.ZIP_STORED),
        make_zip([(n.replace(root, "..", 1), d) for n, d in members], zipfile.ZIP_STORED),
        make_zip([(n, b"big" if n.endswith("byteorder") else d) for n, d in members], zipfile.ZIP_STORED),
        make_zip(members + members, zipfile.ZIP_STORED),
        forged(good, b"PK\1\2", 24, b"\xff\xff\xff\x7f"),
        forged(good, b"PK\1\2", 8, b"\1\0"),
        legacy.getvalue(),
        tar.getvalue(),
        script.getvalue(),
        whole.getvalue(),
        *hostile_pickles(canary),
    ]
