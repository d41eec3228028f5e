"""Images known again by their pixels: whether classes were trained on, whatever their folder is called now."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Set

from episodes.bank import ImageBank

PER_CLASS, AMONG, MOST = 8, 32, 2**14
_TURNED = re.compile(r"/rot(090|180|270)$")


def _marks(bank: ImageBank, first: int, last: int) -> list[str]:
    """64 bits of a hash of each image's shape and pixels, in hexadecimal."""
    images = bank.images[first:last].contiguous().cpu().numpy()
    shape = str(bank.image_shape).encode()
    return [hashlib.blake2b(image.data, digest_size=8, person=shape[:16]).hexdigest() for image in images]


def class_marks(bank: ImageBank, before: Iterable[str] = ()) -> list[str]:
    """Marks that tell the bank's classes again, joined with those ``before``.

    Of each class the `PER_CLASS` smallest marks of its first `AMONG` images: of a copy that keeps half of them, half of
    these are kept. Quarter turns are known by the upright image. At most `MOST` of the bank: of many classes fewer
    marks of each, but never one alone, by which `classes_with` knows none; of more than `MOST` / 2 classes two of as
    many, evenly spread.
    """
    spans = zip(bank.class_names, bank.offsets.tolist(), bank.offsets.tolist()[1:], strict=False)
    upright = [(first, last) for name, first, last in spans if not _TURNED.search(name)]
    kept = [sorted(_marks(bank, first, min(last, first + AMONG)))[:PER_CLASS] for first, last in upright]
    if 2 * len(kept) > MOST:
        kept = [kept[number * len(kept) // (MOST // 2)] for number in range(MOST // 2)]
    each = MOST // max(1, len(kept))
    return sorted({*before, *(mark for marks in kept for mark in marks[:each])})


def classes_with(bank: ImageBank, marks: Set[str]) -> list[str]:
    """Names of the bank's classes that hold two images or more of these marks, or whose every image is one.

    One alone may be an image that two different classes share, as six pairs of miniImageNet are.
    """
    if not marks:
        return []
    ends = bank.offsets.tolist()
    found = []
    for name, first, last in zip(bank.class_names, ends, ends[1:], strict=False):
        known = len(marks & set(_marks(bank, first, last)))
        if known >= min(2, last - first) and known:
            found.append(name)
    return found
