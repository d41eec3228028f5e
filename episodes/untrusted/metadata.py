"""Data beside the pixels of a picture file, counted before anything reads it.

Pillow takes comments, profiles, offsets and EXIF apart in Python when it opens a file, some of it in time that grows
with the square: a few kilobytes can keep it for a minute. These counts take microseconds.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from PIL import Image

from episodes.errors import InputError

MAX_PIECES = 10_000  # segments of a JPEG, chunks of a PNG besides one for each kilobyte
MAX_TEXTS = 256  # chunks of a PNG that are no pixels; each may unpack to a megabyte
MAX_BLOCKS = 4_000  # of a GIF before its first frame; they are joined one to the next
MAX_PARSED = 2**20  # bytes of a JPEG that are taken apart in Python
MAX_EXIF = 2**17
MAX_STRIPS = 2**16
MAX_VALUES = 2**18
MAX_HEADER = 2**16  # bytes of a PNM's, comments too
_RATIONAL_WORTH = 16  # plain numbers, in time
# bytes of a TIFF's types: BYTE, ASCII, SHORT, LONG, RATIONAL, SBYTE, UNDEFINED, ...
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_PLACES = (273, 279, 324, 325)  # where strips and tiles are, and how long
_FOLDED = (34665, 34853, 40965)  # tags that lead to EXIF, GPS and interoperability directories


class _Excess(Exception):
    """The kind of data that there is too much of."""


def check_metadata(data: bytes, where: str) -> None:
    """Raises `InputError` if a picture file holds more beside its pixels than is read; damage is not looked for."""
    checks: tuple[tuple[tuple[bytes, ...], Callable[[bytes], None]], ...] = (
        ((b"\x89PNG",), _png),
        ((b"\xff\xd8",), _jpeg),
        ((b"GIF8",), _gif),
        ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
        (tuple(b"P%d" % n for n in range(1, 7)), _pnm),
    )
    if data[4:8] == b"ftyp":
        _told(lambda: _avif(data), where)
    for magic, check in checks:
        if data.startswith(magic):
            _told(lambda check=check: check(data), where)  # type: ignore[misc]


def check_exif(picture: Image.Image, where: str) -> None:
    """Raises `InputError` if an opened picture's EXIF block, of any format, is too much to be taken apart."""
    exif = picture.info.get("exif")
    raw = picture.info.get("Raw profile type exif")
    if isinstance(exif, bytes):
        _told(lambda: _exif(exif.removeprefix(b"Exif\0\0")), where)
    if isinstance(raw, str | bytes) and len(raw) > 2 * MAX_EXIF:
        _told(lambda: _at_most(len(raw), 2 * MAX_EXIF, "bytes of EXIF in hexadecimal"), where)
    elif isinstance(raw, str):
        try:
            block = bytes.fromhex("".join(raw.split("\n")[3:]))
        except ValueError:
            return
        _told(lambda: _exif(block.removeprefix(b"Exif\0\0")), where)


def _told(check: Callable[[], None], where: str) -> None:
    try:
        check()
    except _Excess as error:
        raise InputError(
            f"{where} holds {error} beside its pixels; save it again without its metadata, or as a PNG."
        ) from error
    except (struct.error, IndexError):  # cut short, as its decoder will say
        pass


def _at_most(count: int, most: int, what: str) -> None:
    if count > most:
        raise _Excess(f"{count:,} {what}, of which at most {most:,} are read,")


def _png(data: bytes) -> None:
    at, chunks, texts = 8, 0, 0
    most = MAX_PIECES + len(data) // 1024
    while at < len(data):
        length, kind = struct.unpack_from(">L4s", data, at)
        if kind == b"IEND":
            return
        chunks += 1
        _at_most(chunks, most, "chunks")
        texts += kind not in (b"IDAT", b"fdAT", b"fcTL")
        _at_most(texts, MAX_TEXTS, "chunks without pixels")
        if kind == b"eXIf":
            _exif(data[at + 8 : at + 8 + length])
        at += 12 + length


def _jpeg(data: bytes) -> None:
    exif: list[bytes] = []
    try:
        _jpeg_segments(data, exif)
    finally:
        _exif(b"".join(exif))


def _jpeg_segments(data: bytes, exif: list[bytes]) -> None:
    """Up to the first scan; what lies between segments is skipped byte by byte, so it counts too."""
    at, pieces, parsed = 2, 0, 0
    while True:
        start = at
        at = data.index(b"\xff", at) if b"\xff" in data[at : at + MAX_HEADER] else at + MAX_HEADER
        while data[at + 1] == 0xFF and at - start < MAX_HEADER:
            at += 1
        _at_most(at - start, MAX_HEADER - 1, "bytes between segments")
        pieces += 1 + (at - start) // 16
        _at_most(pieces, MAX_PIECES, "segments")
        marker = data[at + 1]
        if marker in (0xDA, 0xD9):
            return
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        content = data[at + 4 : at + 2 + length]
        if marker == 0xE1 and content.startswith(b"Exif\0\0"):
            exif.append(content[6:])
        elif marker == 0xE2 and content.startswith(b"MPF\0"):
            _exif(content[4:])
        if marker in (0xED, 0xDB):
            parsed += len(content)
            _at_most(parsed, MAX_PARSED, "bytes of Photoshop's blocks and tables")
        at += 2 + length


def _gif(data: bytes) -> None:
    """Up to the first frame."""
    at, blocks = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0), 0
    while (kind := data[at]) not in (0x2C, 0x3B):
        at, blocks = at + 1, blocks + 1
        _at_most(blocks, MAX_BLOCKS, "blocks of comments")
        if kind == 0x21:
            at += 1
            while data[at]:
                at, blocks = at + 1 + data[at], blocks + 1
                _at_most(blocks, MAX_BLOCKS, "blocks of comments")
            at += 1


def _avif(data: bytes) -> None:
    """Wherever an EXIF block may begin: Pillow takes it apart on opening, and boxes may put it anywhere."""
    starts = [match.start() for match in islice(re.finditer(rb"II\*\0|MM\0\*", data), 17)]
    _at_most(len(starts), 16, "blocks of EXIF")
    for start in starts:
        with suppress(struct.error):  # pixels that look like one
            _tiff(data[start:])


def _pnm(data: bytes) -> None:
    """The size and the largest number, with comments between them."""
    lines = data[:MAX_HEADER].split(b"\n")
    words = b" ".join(line.partition(b"#")[0] for line in lines).split()
    if len(data) > MAX_HEADER and len(words) < 4:
        raise _Excess(f"a header of more than {MAX_HEADER:,} bytes")


def _exif(data: bytes) -> None:
    _at_most(len(data), MAX_EXIF, "bytes of EXIF")
    if data[:4] in (b"II*\0", b"MM\0*"):
        _tiff(data)


def _tiff(data: bytes) -> None:
    """The first directory and those folded into it: entries, what they point to, strips."""
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    head, entry, inline = (order + "Q", order + "HHQ", 8) if big else (order + "H", order + "HHL", 4)
    offset_kind = order + ("Q" if big else "L")
    (first,) = struct.unpack_from(offset_kind, data, 8 if big else 4)
    waiting, total, values = [first], 0, 0
    for place in waiting:
        if place + 2 > len(data):
            continue
        (entries,) = struct.unpack_from(head, data, place)
        _at_most(entries, 2**12, "tags")
        for number in range(entries):
            at = place + struct.calcsize(head) + number * (12 if not big else 20)
            if at + struct.calcsize(entry) + inline > len(data):
                break
            tag, kind, count = struct.unpack_from(entry, data, at)
            size = _SIZES.get(kind, 0) * count
            total += size if size > inline else 0
            _at_most(total, max(len(data), MAX_EXIF), "bytes of tags, some of them counted twice")
            if tag in _PLACES:
                _at_most(count, MAX_STRIPS, "strips or tiles")
            elif kind not in (1, 2, 7):  # bytes and text are not taken apart
                values += count * (_RATIONAL_WORTH if kind in (5, 10) else 1)
                _at_most(values, MAX_VALUES, "numbers in its tags")
            if tag in _FOLDED and len(waiting) < 8:
                (folded,) = struct.unpack_from(offset_kind, data, at + struct.calcsize(entry))
                waiting.append(folded)
