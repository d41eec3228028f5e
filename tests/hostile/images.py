"""Pictures and arrays that claim to be larger than they are, or are larger than they look."""

from __future__ import annotations

import io
import struct
from typing import Any

from PIL import Image

from tests.hostile.samples import FORMATS, small_picture


def _picture_file(kind: str, size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def _claiming(kind: str, width: int, height: int) -> bytes:
    """A small picture whose header claims to be ``width`` x ``height``."""
    data = bytearray(small_picture(24, kind))
    if kind == "png":
        import zlib

        data[16:24] = struct.pack(">LL", width, height)
        data[29:33] = struct.pack(">L", zlib.crc32(data[12:29]))
    elif kind == "bmp":
        data[18:26] = struct.pack("<ll", width, height)
    elif kind == "gif":
        data[6:10] = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    elif kind == "jpg":
        at = data.find(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    elif kind == "ppm":
        data = bytearray(b"P6\n%d %d\n255\n" % (width, height) + b"\0" * 99)
    elif kind == "tif":
        data = bytearray(data.replace(struct.pack("<HHLL", 256, 4, 1, 24), struct.pack("<HHLL", 256, 4, 1, width)))
        data = bytearray(data.replace(struct.pack("<HHLHH", 256, 3, 1, 24, 0), struct.pack("<HHLL", 256, 4, 1, width)))
    return bytes(data)


def hostile_pictures() -> list[bytes]:
    wide = [
        _claiming(kind, *size)
        for kind in FORMATS
        for size in ((50_000, 50_000), (2**31 - 1, 2**31 - 1), (19_999, 3_200), (0, 0))
    ]
    progressive = _picture_file("JPEG", (6000, 6000), "L", progressive=True)
    scan = progressive[progressive.rfind(b"\xff\xda") : -2]
    text = b"P3\n2000 2000\n255\n" + b"1 " * 12_000_000
    runs = bytearray(_picture_file("BMP", (4000, 4000), "L"))
    runs[30:34] = struct.pack("<L", 1)
    return [
        *wide,
        _picture_file("PNG", (8000, 8000), "1"),
        _picture_file("PNG", (10_000, 10_000), "1"),
        _picture_file("PNG", (5990, 5990)),
        _picture_file("PNG", (5190, 5190), "RGBA"),
        _picture_file("PNG", (7000, 7000), "RGBA"),
        _picture_file("PNG", (5190, 5190), "P", transparency=0),
        _picture_file("PNG", (4000, 4000), "I;16"),
        _picture_file("JPEG", (8000, 8000)),
        _picture_file("JPEG", (8000, 8000), progressive=True),
        _picture_file("WEBP", (5990, 5990), lossless=True, method=0),
        _picture_file("GIF", (8000, 8000), "L"),
        _picture_file("TIFF", (5190, 5190), "RGBA", compression="tiff_deflate"),
        progressive[:-2] + scan * 2000 + b"\xff\xd9",
        text,
        bytes(runs),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"MZ" + b"\0" * 200,
        b"",
    ]


def hostile_arrays() -> list[bytes]:
    def npy(header: str) -> bytes:
        text = header.encode() + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"\0" * 100

    good = "{'descr': '|u1', 'fortran_order': False, 'shape': %s}"
    shapes = ("(10**12,)", "(1099511627776,)", "(-1,)", "(2, 2, 2, 2)", "()", "((1,),)", "(24, 1, 16, 17)")
    return [
        *(npy(good % shape) for shape in shapes),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"),
        npy("("),
        npy("(" * 5000),
        npy("__import__('os')"),
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x93NUMPY\x09\x00",
        b"",
        b"PK\5\6" + b"\0" * 18,
    ]
