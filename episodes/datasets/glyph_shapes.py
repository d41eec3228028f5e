"""Letter shapes out of font files: centre lines of equal size, and which of them look alike.

A font's stroke weight and size say nothing about the letter, so each glyph is drawn large, brought to one
size, thinned to its centre line (Zhang & Suen, "A fast parallel algorithm for thinning digital patterns",
CACM 1984) and kept as the distance to that line. A pen of any width is then a threshold on that distance.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFont
from torch import Tensor

from episodes.errors import InputError

# Upright and regular faces only: slant and weight are for the warp and the pen, and true italics are other
# shapes (Cyrillic т becomes m). DejaVu Serif is left out: its Georgian letters are others than the sans's.
FACES = (
    "DejaVuSans.ttf",
    "DejaVuSansMono.ttf",
    "STIXGeneral.ttf",
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


def _ink(code: int, face: str) -> np.ndarray:
    """bool ``[CANVAS, CANVAS]``: the filled glyph, centred, its longer side `EXTENT`."""
    core = _font(face).getmask(chr(code), mode="L")
    glyph = Image.frombytes("L", core.size, bytes(core))
    box = glyph.getbbox()
    if box is None:
        raise InputError(f"{face} draws U+{code:04X} as an empty picture; matplotlib's fonts have changed.")
    factor = EXTENT / max(box[2] - box[0], box[3] - box[1])
    width, height = (max(1, round(factor * (box[k + 2] - box[k]))) for k in (0, 1))
    canvas = Image.new("L", (CANVAS, CANVAS))
    small = glyph.resize((width, height), Image.Resampling.BOX, box=box)
    canvas.paste(small, ((CANVAS - width) // 2, (CANVAS - height) // 2))
    return np.asarray(canvas) > 127


@cache
def _thinning_tables() -> tuple[np.ndarray, np.ndarray]:
    """Which of the 256 neighbourhoods lose their pixel, in either half step; bit k: clockwise from north."""
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
    """Centre lines, one pixel wide, of bool ``[n, H, W]`` (Zhang & Suen 1984); the borders must be empty."""
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


def centre_lines(glyphs: Sequence[tuple[int, str]]) -> np.ndarray:
    """bool ``[len(glyphs), CANVAS, CANVAS]``: the centre lines of (code point, face) pairs.

    Raises:
        InputError: if a glyph is empty.
    """
    return thin(np.stack([_ink(code, face) for code, face in glyphs]))


def distances(lines: np.ndarray) -> Tensor:
    """float32 ``[n, H, W]``: each pixel's distance, in pixels, to the nearest line, at most `REACH`."""
    from scipy.ndimage import distance_transform_edt  # a fifth of a second that only drawing needs

    fields = [np.minimum(distance_transform_edt(~line), REACH) for line in lines]
    return torch.from_numpy(np.stack(fields).astype(np.float32))


# ---- which letters: run by hand (and by a test); the answer is the table in glyphs.py ----

_GRID, _SIDE = 28, 24  # shapes are compared on a grid of 28 with the longer side 24
# Alike: no point of either letter's lines is further from the other's than the first number, or they are
# closer on average than the second; stricter between splits, where a wrong "distinct" costs more.
ALIKE_WITHIN = (2.0, 0.4)
ALIKE_ACROSS = (2.5, 0.75)
# Alike to the eye (a capital's small letter, a test letter's double) but past the numbers above, mostly
# because thinning forks their strokes unlike.
ALIKE_BY_EYE = frozenset("ѩӿʢԟҝԡѡҿꝧѽтϫGɢԌꓖŋꙍĸ")
_SHORTEST = 30  # pixels of centre line; less is a dot or a dash


def _normalised(lines: np.ndarray) -> Tensor:
    """float32 ``[n, 28, 28]``: distances after stretching each line's bounding box to one square, centred.

    The aspect is evened out because a hand would not keep it; a box narrower than half its length keeps the
    rest, so that a bar stays a bar.
    """
    ink = torch.from_numpy(lines)
    steps = torch.arange(CANVAS)

    def span(hit: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(hit, steps, CANVAS).amin(1), torch.where(hit, steps, -1).amax(1)

    (top, bottom), (left, right) = span(ink.any(2)), span(ink.any(1))
    box = torch.stack((bottom - top, right - left)).float() + 1
    factor = torch.maximum(box, box.amax(0) / 2)[:, :, None] / _SIDE
    offsets = (torch.arange(_GRID) - (_GRID - 1) / 2) * factor
    x = (offsets[1] + (left + right)[:, None] / 2)[:, None, :].expand(-1, _GRID, -1)
    y = (offsets[0] + (top + bottom)[:, None] / 2)[:, :, None].expand(-1, -1, _GRID)
    grid = (2 * torch.stack((x, y), -1) + 1) / CANVAS - 1
    moved = F.grid_sample(torch.from_numpy(lines[:, None]).float(), grid, align_corners=False)[:, 0]
    # distances are taken after the stretch; "drawn" is loose so that no line is lost where it shrinks
    return distances((moved > 0.2).numpy())


def alike(fields: Tensor, owners: Tensor, furthest: float, mean: float) -> Tensor:
    """Which letters look alike: Hausdorff or mean distance of centre lines, best over shifts by one pixel.

    Args:
        fields: float32 ``[n, H, W]``, normalised distances; several per letter (one per face).
        owners: int64 ``[n]``, the letter each field belongs to, in ``[0, letters)``.
        furthest: the largest Hausdorff distance, in the grid's pixels, that still counts as alike.
        mean: the largest mean distance, the larger of the two directions, that does too.

    Returns:
        bool ``[letters, letters]``, symmetric; any face of the one against any face of the other.
    """
    flat = fields.flatten(1)
    on = (flat < 0.8).float()
    share = on / on.sum(1, keepdim=True)
    far = (flat > furthest).float()
    near = torch.zeros(len(fields), len(fields), dtype=torch.bool)
    for shift in [(0, 0), (0, 1), (1, -1), (1, 0), (1, 1)]:  # opposite shifts come with a pair's other order
        moved = fields.roll(shift, (1, 2)).flatten(1)
        # a product of 0/1 matrices counts, for all pairs at once, line pixels too far from the other's line
        near |= (on @ (moved > furthest).float().T + far @ (moved < 0.8).float().T) == 0
        moved_share = share.view_as(fields).roll(shift, (1, 2)).flatten(1)
        near |= torch.maximum(share @ moved.T, flat @ moved_share.T) <= mean
    count = int(owners.max()) + 1
    pairs = near.nonzero()
    answer = torch.zeros(count, count, dtype=torch.bool)
    answer[owners[pairs[:, 0]], owners[pairs[:, 1]]] = True
    return answer | answer.T


def select_letters(prefixes: Mapping[str, str], order: Mapping[str, int]) -> dict[str, list[int]]:
    """The letters to draw: code points by script, no two of them alike.

    Candidates are what the faces cover in Unicode's categories Lu, Ll and Lo, undecomposable (no accents,
    no ligatures), with more ink than a dash, not in `ALIKE_BY_EYE`. They are taken in the order of their
    split's rank, then code point; one that looks like a letter taken before is dropped. So the split with the
    highest rank gives way.

    Args:
        prefixes: script by the first word of a letter's Unicode name.
        order: rank of the script's split by script.

    Returns:
        Sorted code points by script.
    """
    codes: dict[int, str] = {}
    for code in sorted(set().union(*(coverage(face) for face in FACES))):
        letter = chr(code)
        script = prefixes.get(unicodedata.name(letter, "").split(" ")[0])
        plain = unicodedata.category(letter) in ("Lu", "Ll", "Lo") and not unicodedata.decomposition(letter)
        if script and plain and letter not in ALIKE_BY_EYE:
            codes[code] = script
    glyphs = [(code, face) for code in codes for face in faces_of(code)]
    lines = centre_lines(glyphs)
    short = {code for (code, _), length in zip(glyphs, lines.sum((1, 2)), strict=True) if length < _SHORTEST}
    number = {code: index for index, code in enumerate(codes)}
    owners = torch.tensor([number[code] for code, _ in glyphs])
    fields = _normalised(lines)
    within, across = (alike(fields, owners, *limits) for limits in (ALIKE_WITHIN, ALIKE_ACROSS))
    rank = {code: order[script] for code, script in codes.items()}
    kept: list[int] = []
    for code in sorted(codes.keys() - short, key=lambda code: (rank[code], code)):
        if not any((within if rank[code] == rank[other] else across)[number[code], number[other]] for other in kept):
            kept.append(code)
    return {script: sorted(code for code in kept if codes[code] == script) for script in order}
