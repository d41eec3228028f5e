"""Pictures of a few pixels with much beside them: what their reader takes apart before it decodes anything."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image, features


def _file(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 100, 50)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(tags: list[tuple[int, int, int, bytes | int]], tail: bytes = b"", big: bool = False) -> bytes:
    """A TIFF directory; a value of bytes is stored after it, a number is the place of bytes that are there already."""
    head = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<L", 8)
    at = len(head) + (8 + 20 * len(tags) + 8 if big else 2 + 12 * len(tags) + 4)
    entries, store = b"", b""
    for tag, kind, count, value in sorted(tags, key=lambda entry: entry[0]):
        if isinstance(value, bytes):
            place = struct.pack("<Q" if big else "<L", at + len(store)) if len(value) > (8 if big else 4) else value
            if len(value) > (8 if big else 4):
                store += value
        else:
            place = struct.pack("<Q" if big else "<L", value)
        entries += struct.pack("<HHQ" if big else "<HHL", tag, kind, count) + place.ljust(8 if big else 4, b"\0")
    counted = struct.pack("<Q" if big else "<H", len(tags))
    return head + counted + entries + (b"\0" * 8 if big else b"\0" * 4) + store + tail


def picture_tags(width: int, height: int) -> list[tuple[int, int, int, bytes | int]]:
    return [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]


def _strips(count: int, big: bool = False) -> bytes:
    """One byte of pixels in each strip."""
    numbers = struct.pack(f"<{count}L", *([8] * count))
    ones = struct.pack(f"<{count}L", *([1] * count))
    tags = [*picture_tags(1, count), (273, 4, count, numbers), (278, 4, 1, 1), (279, 4, count, ones)]
    return tiff(tags, big=big)


def _jpeg(segments: bytes) -> bytes:
    good = _file("JPEG")
    return good[:2] + segments + good[2:]


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _gif(blocks: bytes) -> bytes:
    good = _file("GIF")
    at = 13 + (3 << (good[10] & 7) + 1)
    return good[:at] + blocks + good[at:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def _png(chunks: bytes, after: bool = False) -> bytes:
    good = _file("PNG")
    at = good.index(b"IDAT") - 4 if not after else good.index(b"IEND") - 4
    return good[:at] + chunks + good[at:]


def rationals(count: int) -> bytes:
    values = struct.pack("<LL", 355, 113) * count
    return tiff([(33434, 5, count, values), (274, 3, 1, 6)])


def overlapping(tags: int, count: int, kind: int = 7) -> bytes:
    """Many tags, each of which claims the same bytes."""
    return tiff([(2_000 + n, kind, count, 8) for n in range(tags)] + [(274, 3, 1, 6)], bytes(count * 8))


def _riff(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<L", len(content)) + content + b"\0" * (len(content) % 2)


def _webp(exif: bytes) -> bytes:
    return _file("WEBP", exif=b"Exif\0\0" + exif)


def _avif(exif: bytes) -> bytes:
    """As `_file` would write it after seconds of reading it."""
    empty = b"II*\0\x08\0\0\0".ljust(len(exif), b"\0")
    return _file("AVIF", exif=b"Exif\0\0" + empty).replace(empty, exif)


def _exif_in_text(count: int) -> bytes:
    hexadecimal = "exif\n  1\n  2\n" + rationals(count).hex()
    return b"Raw profile type exif\0\0" + zlib.compress(hexadecimal.encode())


def metadata_bombs() -> dict[str, Callable[[], bytes]]:
    """Makers, by name, of some 50 files, each of which took its reader seconds, or gigabytes, without bounds."""
    good_gif = _file("GIF")
    ratio, overlaps = struct.pack("<LL", 355, 113), overlapping(4000, 2_000, 1)[:65_000]
    text = b"key\0" + b"x" * 40
    unpacked = zlib.compress(bytes(1_000_000))
    bombs = {
        "tiff, strips of a byte": lambda: _strips(1_000_000),
        "tiff, tiles of nothing": lambda: tiff([*picture_tags(60_000, 1000), (322, 4, 1, 16), (323, 4, 1, 16),
                                        (324, 4, 2_000_000, bytes(8_000_000)), (325, 4, 2_000_000, 8)]),
        "bigtiff, strips of a byte": lambda: _strips(1_000_000, big=True),
        "tiff, rationals": lambda: tiff([*picture_tags(4, 4), (33434, 5, 500_000, ratio * 500_000)]),
        "tiff, long colour map": lambda: tiff([*picture_tags(4, 4), (320, 3, 4_000_000, bytes(8_000_000))]),
        "tiff, bits per sample": lambda: tiff([*picture_tags(4, 4)[:2], (258, 3, 4_000_000, bytes(8_000_000))]),
        "tiff, overlapping tags": lambda: overlapping(4000, 1_000_000),
        "tiff, many tags": lambda: overlapping(60_000, 1),
        "tiff, exif of rationals": lambda: tiff([*picture_tags(4, 4), (34665, 4, 1, 200)],
                                        bytes(100) + rationals(400_000)[8:]),
        "gif, one comment": lambda: _gif(b"\x21\xfe" + (b"\xff" + b"c" * 255) * 16_000 + b"\0"),
        "gif, empty comments": lambda: _gif(b"\x21\xfe\x00" * 1_300_000),
        "gif, short comments": lambda: _gif(b"\x21\xfe\x01c\x00" * 800_000),
        "gif, application blocks": lambda: _gif(b"\x21\xff\x0bXMP DataXMP" + b"\x01x" * 2_000_000 + b"\0"),
        "gif, bytes between": lambda: _gif(b"\x01" * 8_000_000),
        "gif, all extensions": lambda: good_gif[:13] + b"\x21\xf9\x04\0\0\0\0\0" * 1_000_000,
        "png, exif of rationals": lambda: _png(_chunk(b"eXIf", rationals(500_000))),
        "png, exif of overlapping tags": lambda: _png(_chunk(b"eXIf", overlapping(4000, 100_000))),
        "png, exif after the pixels": lambda: _png(_chunk(b"eXIf", rationals(500_000)), after=True),
        "png, exif in text": lambda: _png(_chunk(b"zTXt", _exif_in_text(50_000))),
        "png, empty chunks": lambda: _png(_chunk(b"teSt", b"") * 600_000),
        "png, empty chunks after": lambda: _png(_chunk(b"teSt", b"") * 600_000, after=True),
        "png, empty pixels": lambda: _png(_chunk(b"IDAT", b"") * 600_000),
        "png, texts": lambda: _png(_chunk(b"tEXt", text) * 120_000),
        "png, packed texts": lambda: _png(_chunk(b"zTXt", b"k\0\0" + unpacked) * 5000),
        "png, packed profiles": lambda: _png(_chunk(b"iCCP", b"k\0\0" + unpacked) * 5000),
        "jpeg, empty segments": lambda: _jpeg(_segment(0xE9, b"") * 2_000_000),
        "jpeg, comments": lambda: _jpeg(_segment(0xFE, b"c") * 1_500_000),
        "jpeg, exif in pieces": lambda: _jpeg(_segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 200),
        "jpeg, exif in many pieces": lambda: _jpeg(_segment(0xE1, b"Exif\0\0" + b"II") * 9_000),
        "jpeg, exif of rationals": lambda: _jpeg(_segment(0xE1, b"Exif\0\0" + rationals(8_000))),
        "jpeg, exif of overlapping tags": lambda: _jpeg(_segment(0xE1, b"Exif\0\0" + overlaps)),
        "jpeg, frames of overlapping tags": lambda: _jpeg(_segment(0xE2, b"MPF\0" + overlaps)),
        "jpeg, photoshop": lambda: _jpeg(_segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5000) * 130),
        "jpeg, tables": lambda: _jpeg(_segment(0xDB, (b"\0" + b"\x10" * 64) * 1000) * 120),
        "jpeg, profile in pieces": lambda: _jpeg(_segment(0xE2, b"ICC_PROFILE\0\1\xff" + b"x") * 400_000),
        "jpeg, bytes between": lambda: _jpeg(b"\0" * 8_000_000),
        "jpeg, fill bytes": lambda: _jpeg(b"\xff" * 8_000_000),
        "jpeg, marks without length": lambda: _jpeg(b"\xff\x00" * 4_000_000),
        "pnm, long comment": lambda: b"P5\n#" + b"c" * 16_000_000 + b"\n4 4\n255\n" + bytes(16),
        "pnm, many comments": lambda: b"P5\n" + b"#\n" * 8_000_000 + b"4 4\n255\n" + bytes(16),
        "pnm, many blanks": lambda: b"P5\n" + b" " * 16_000_000 + b"4 4\n255\n" + bytes(16),
        "pnm, odd scale": lambda: b"P6\n4000 4000\n254\n" + bytes(48_000_000),
        "pnm, odd deep scale": lambda: b"P5\n4000 4000\n1000\n" + bytes(32_000_000),
        "webp, exif of rationals": lambda: _webp(rationals(500_000)),
        "webp, exif of overlapping tags": lambda: _webp(overlapping(4000, 100_000)),
    }  # fmt: skip
    if features.check("avif"):
        bombs["avif, exif of rationals"] = lambda: _avif(rationals(500_000))
    return bombs
