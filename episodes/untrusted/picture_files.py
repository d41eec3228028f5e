"""Which files are pictures: what they hold decides, and what is left aside is counted and named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from episodes.untrusted.archives import Source

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
KINDS = "PNG, JPEG, BMP, GIF, WebP, TIFF, PNM and AVIF"
HEAD = 64  # bytes that tell a kind
_SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
_NAMED = 3
# BMP's two letters begin many a text, so its header's length is looked at too
_MAGIC = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|II[*+]\0|MM\0[*+]|RIFF....WEBP|P[1-6][ \t\r\n]\s*[\d#]"
    rb"|....ftypavi[fs]|....ftyp.{4,40}avi[fs]|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    re.DOTALL,
)


def looks_like_picture(head: bytes) -> bool:
    """Whether a file that begins with these bytes (`HEAD` of them) is a picture of one of `KINDS`."""
    return _MAGIC.match(head) is not None


def is_hidden(name: str) -> bool:
    """Whether a name is a system's own, not a person's."""
    parts = PurePosixPath(name).parts
    return any(part.startswith((".", "__MACOSX")) for part in parts) or parts[-1].lower() in _SYSTEM_FILES


def is_picture(name: str) -> bool:
    """Whether the name ends like a picture and is not a system's own file."""
    return PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES and not is_hidden(name)


def find_pictures(source: Source, known: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The names of a source's pictures, and sentences on everything that was left aside.

    A file whose name ends like a picture is one, and an error later if it holds something else; any other file is
    one if it begins like a picture: ``.jfif``, ``.jpg_medium``, no suffix at all.

    Args:
        known: names of files that are there for another reason, and not worth a sentence.
    """
    pictures, others = [], []
    for name in source.names:
        if is_hidden(name):
            continue
        if is_picture(name) or looks_like_picture(source.head(name)):
            pictures.append(name)
        elif name not in known:
            others.append(name)
    notes = list(source.aside)
    if others:
        endings = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in others)
        counted = ", ".join(f"{ending} {count}" for ending, count in endings.most_common(5))
        more = f" and {len(endings) - 5} more" if len(endings) > 5 else ""
        notes.append(left_aside(f"files that are no {KINDS}, by ending {counted}{more}", others))
    return pictures, notes


def left_aside(what: str, names: Sequence[str]) -> str:
    """A sentence that counts and names what was left aside."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"left aside ({len(names)}), {what}: {', '.join(names[:_NAMED])}{more}"
