"""Zip files and safetensors files with forged headers, ways out, and bombs."""

from __future__ import annotations

import copy
import gzip
import io
import json
import struct
import tarfile
import warnings
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.hostile.samples import small_picture


def _safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def hostile_safetensors(good: bytes) -> list[bytes]:
    (length,) = struct.unpack("<Q", good[:8])
    header, data = json.loads(good[8 : 8 + length]), good[8 + length :]
    name = next(key for key in header if key != "__metadata__")
    cases = [_safetensors(header, data, n) for n in (0, 1, 2**20 + 1, 2**31, 2**40, 2**62, 2**64 - 1)]

    def changed(**change: Any) -> bytes:
        forged = copy.deepcopy(header)
        forged[name].update(change)
        return _safetensors(forged, data)

    cases += [
        changed(shape=shape) for shape in ([2**40], [2**32, 2**32], [-1], [0, 2**62], "x", [1.5], [2**64], [10**30], [])
    ]
    cases += [
        changed(data_offsets=at)
        for at in ([0, 2**40], [4, 0], [-4, 0], [0, 0], [0, len(data)], "x", [0], [2**63, 2**64 - 1])
    ]
    cases += [
        changed(dtype=kind) for kind in ("F64", "I8", "U8", "BOOL", "F8_E4M3", "C64", "F16", "BF16", "X", 3, None)
    ]
    overlap = copy.deepcopy(header)
    for key in overlap:
        if key != "__metadata__":
            overlap[key]["data_offsets"] = header[name]["data_offsets"]
    many = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(12_000)}
    cases += [
        _safetensors(overlap, data),
        _safetensors(many),
        _safetensors({**header, "__metadata__": 3}, data),
        _safetensors({**header, "__metadata__": {"x": "y" * 900_000}}, data),
        _safetensors(b"[" * 500_000, data),
        _safetensors(b"{" * 500_000, data),
        _safetensors([], data),
        _safetensors(b"\xff" * 100, data),
        _safetensors({}, b""),
        _safetensors(header, data + b"x"),
        _safetensors(header, data[:-1]),
        b"",
        b"\0" * 8,
        _safetensors(header, b"\xff" * len(data)),
        _safetensors({**header, "../../x": header[name]}, data),
    ]
    return cases


def make_zip(members: list[tuple[Any, bytes]], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of members written twice, on purpose
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def forged(data: bytes, signature: bytes, at: int, value: bytes) -> bytes:
    """``value`` written ``at`` bytes into every record that starts with ``signature``."""
    forged, place = bytearray(data), data.find(signature)
    while place >= 0:
        forged[place + at : place + at + len(value)] = value
        place = data.find(signature, place + 4)
    return bytes(forged)


def _overlapping() -> bytes:
    """Many names for one member, the zip bomb that no ratio of a member gives away."""
    good = make_zip([("top/a/1.png", b"\0" * 60_000_000)])
    end = good.rfind(b"PK\5\6")
    start = good.find(b"PK\1\2")
    entries = b"".join(
        good[start:end].replace(b"top/a/1", b"top/%c/%c" % (97 + i % 26, 97 + i // 26)) for i in range(200)
    )
    return good[:start] + entries + good[end : end + 8] + struct.pack("<HHLL", 200, 200, len(entries), start) + b"\0\0"


@cache
def hostile_zips(root: Path) -> list[bytes]:
    link = zipfile.ZipInfo("top/a/1.png")
    link.external_attr = 0o120777 << 16
    names = (
        "../../escaped.png",
        "/escaped.png",
        str(root / "escaped.png"),
        "..\\escaped.png",
        "C:/escaped.png",
        "a/../../escaped.png",
    )
    good = make_zip([(f"top/c{i % 6}/{i}.png", small_picture()) for i in range(12)])
    zeros = b"\0" * 60_000_000
    return [
        *(make_zip([(name, small_picture()), ("top/a/1.png", small_picture())]) for name in names),
        make_zip([(link, b"/etc/passwd")]),
        make_zip([(f"top/c{i}/1.png", zeros) for i in range(8)]),
        _overlapping(),
        make_zip([("top/a/1.png", zeros)]),
        make_zip([(f"top/c{i % 6}/{i}.png", b"") for i in range(30_000)], zipfile.ZIP_STORED),
        make_zip([(f"top/c{i}/1.png", small_picture()) for i in range(6)], zipfile.ZIP_LZMA),
        make_zip([(f"top/c{i}/1.png", small_picture()) for i in range(6)], zipfile.ZIP_BZIP2),
        make_zip([("a/" * 3000 + "1.png", small_picture())]),
        make_zip([("top/a/splits.csv", b"class,split"), ("splits.csv", b"\0" * 9)]),
        make_zip([("top/a/1.png", good)]),
        make_zip([]),
        good + good,
        good[:-22],
        forged(good, b"PK\1\2", 8, b"\1\0"),
        forged(good, b"PK\3\4", 6, b"\1\0"),
        forged(good, b"PK\1\2", 24, b"\xff" * 4),
        forged(good, b"PK\1\2", 20, b"\xff" * 4),
        forged(good, b"PK\1\2", 42, b"\xff" * 4),
        forged(good, b"PK\1\2", 42, b"\0" * 4),
        forged(good, b"PK\1\2", 10, b"\x63\0"),
        forged(good, b"PK\1\2", 28, b"\xff\xff"),
        forged(good, b"PK\1\2", 30, b"\xff\xff"),
        forged(good, b"PK\5\6", 12, b"\xff" * 4),
        forged(good, b"PK\5\6", 16, b"\xff" * 4),
        forged(good, b"PK\5\6", 8, b"\xff" * 4),
        forged(good, b"PK\1\2", 16, b"\0" * 4),
        forged(good, b"PK\3\4", 26, b"\xff\xff"),
        b"PK\5\6" + b"\0" * 18,
        b"PK\3\4",
    ]


def _tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def hostile_tars(good: bytes) -> list[bytes]:
    """npm packages with ways out, links, bombs, forged sizes, and what is none."""
    page = "package/declaration/lat.html"
    plain = gzip.decompress(good)
    huge = bytearray(plain)
    huge[124:136] = b"77777777777\0"  # the first member's size, in octal
    names = ("../../escaped.html", "/escaped.html", "package/declaration/../../../escaped.html", "x" * 3000 + ".html")
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    return [
        *(_tar([(_member(name), b"<html></html>")]) for name in names),
        *(_tar([(_member(page, kind, "/etc/passwd"), b"")]) for kind in kinds),
        _tar([(_member(page), b"\0" * 100_000_000)]),
        _tar([(_member(f"package/declaration/{i}.html"), b"<p>" * 600_000) for i in range(3)]),
        _tar([(_member(f"package/declaration/{i}.html"), b"") for i in range(11_000)]),
        _tar([(_member(page), b"\xff" * 100)]),
        _tar([(_member(page), b'<html data-iso6393="lat">' + b"<article><p>" * 50_000)]),
        _tar([(_member(page), b"<" * 100_000)]),
        _tar([(_member(page), b'<html data-iso6393="' + b"x" * 100_000 + b'">')]),
        gzip.compress(bytes(huge)),
        gzip.compress(b"\0" * 200_000_000, 9),
        gzip.compress(plain[:700]),
        good[:-50],
        good + good,
        plain,
        b"\x1f\x8b",
        b"",
    ]
