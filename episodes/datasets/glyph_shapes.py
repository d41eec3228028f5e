"""Letter shapes out of font files: centre lines of equal size, and which of them look alike.

A font's stroke weight and size say nothing about the letter, so each glyph is drawn large, brought to one
size, thinned to its centre line (Zhang & Suen, "A fast parallel algorithm for thinning digital patterns",
CACM 1984) and kept as the distance to that line. A pen of any width is then a threshold on that distance.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFont
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from episodes.errors import InputError

# Upright faces only: slant is a warp's business, and true italics are other shapes (Cyrillic т becomes m).
FACES = (
    "DejaVuSans.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSerif.ttf",
    "STIXGeneral.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSerif-Bold.ttf",
)
CANVAS = 64  # side of a shape in pixels
EXTENT = 44  # the longer side of the letter on it
REACH = 16  # distances are cut here, in pixels
_EM = 160  # glyphs are drawn at this size first


@cache
def font_path(face: str) -> Path:
    """Where matplotlib keeps a face.

    Raises:
        InputError: if this matplotlib does not ship it.
    """
    from matplotlib import get_data_path

    path = Path(get_data_path()) / "fonts" / "ttf" / face
    if not path.is_file():
        raise InputError(f"matplotlib's fonts lack {face} (looked in {path.parent}); install matplotlib 3.8 or later.")
    return path


@cache
def fonts_fingerprint() -> str:
    """SHA-256 over the font files: pictures made from other fonts are other pictures."""
    digest = hashlib.sha256()
    for face in FACES:
        digest.update(font_path(face).read_bytes())
    return digest.hexdigest()


@cache
def coverage(face: str) -> frozenset[int]:
    """The code points a face has a glyph for."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_path(face))).get_charmap())


def faces_of(code: int) -> tuple[str, ...]:
    """The faces that draw a code point, in `FACES`' order."""
    return tuple(face for face in FACES if code in coverage(face))


@cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    # the basic engine: raqm, where present, would shape Arabic letters by their neighbours
    return ImageFont.truetype(str(font_path(face)), _EM, layout_engine=ImageFont.Layout.BASIC)


def _ink(code: int, face: str) -> np.ndarray | None:
    """bool ``[CANVAS, CANVAS]``, the filled glyph with its longer side `EXTENT`, centred; None if it has no ink."""
    mask = Image.frombytes("L", *_mask(face, chr(code)))
    box = mask.getbbox()
    if box is None:
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    factor = EXTENT / max(width, height)
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(
        mask.resize(small, Image.Resampling.BOX, box=box),
        ((CANVAS - small[0]) // 2, (CANVAS - small[1]) // 2),
    )
    return np.asarray(canvas) > 127


def _mask(face: str, text: str) -> tuple[tuple[int, int], bytes]:
    core = _font(face).getmask(text, mode="L")
    return core.size, bytes(core)


@cache
def _thinning_tables() -> tuple[np.ndarray, np.ndarray]:
    """Which of the 256 neighbourhoods lose their pixel, in either half step; bit k is neighbour k, N first, clockwise."""
    tables = np.zeros((2, 256), dtype=bool)
    for code in range(256):
        p = [(code >> k) & 1 for k in range(8)]
        rises = sum(1 for k in range(8) if not p[k] and p[(k + 1) % 8])
        n, e, s, w = p[0], p[2], p[4], p[6]
        if 2 <= sum(p) <= 6 and rises == 1:
            tables[0, code] = not (n and e and s) and not (e and s and w)
            tables[1, code] = not (n and e and w) and not (n and s and w)
    return tables[0], tables[1]


def thin(ink: np.ndarray) -> np.ndarray:
    """Centre lines, one pixel wide, of bool ``[n, H, W]`` (Zhang & Suen 1984). The outermost pixels must be empty."""
    ink = ink.astype(np.uint8)
    active = np.arange(len(ink))
    around = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    while len(active):
        now = ink[active]
        before = now.sum((1, 2))
        for table in _thinning_tables():
            code = np.zeros_like(now)
            inner = code[:, 1:-1, 1:-1]
            for bit, (dy, dx) in enumerate(around):
                inner |= now[:, 1 + dy : now.shape[1] - 1 + dy, 1 + dx : now.shape[2] - 1 + dx] << bit
            now &= ~table[code]
        ink[active] = now
        active = active[now.sum((1, 2)) < before]
    return ink.astype(bool)
