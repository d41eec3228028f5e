"""Glyphs: letters of fifteen scripts drawn from matplotlib's fonts with a wavering hand; made, not fetched.

For work on machines without Omniglot, and as a second alphabet set beside it: 20 drawings per letter,
strokes, sizes and placing like Omniglot's (Lake et al., Science 2015), splits by script.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from episodes.augment import affine_matrix, resample
from episodes.bank import Attribute, ImageBank
from episodes.counter_rng import check_seed, fold, mix
from episodes.datasets.base import DATASETS, Dataset
from episodes.datasets.cache import cached_bank
from episodes.datasets.glyph_shapes import (
    CANVAS,
    centre_lines,
    distances,
    faces_of,
    fonts_fingerprint,
    select_letters,
)
from episodes.errors import InputError

DRAWINGS = 20
PEN = 0.78  # mean half width of the pen, in pixels of a 28-pixel picture
_RECIPE = 1  # raise it when the pictures change: caches made before are then not read

# Script: split, and its letters as hexadecimal code points. Written by `letter_table`, kept here so that the
# classes do not move with a font's or a library's version.
LETTERS: dict[str, tuple[str, str]] = {
    "arabic": (
        "train",
        "621 629-62C 62E-637 639-63A 641-646 648-64A 66E-66F 674 679 67B-67C 681 688-68B 68D-68F 691-695 "
        "697-698 69A 69E 6A0-6A5 6A8-6AB 6AD-6B0 6B2-6B5 6B7-6BA 6BC-6BE 6C6-6C8 6CB 6CE 6D0 FE73",
    ),
    "canadian": (
        "train",
        "1402 1404-1406 140A-140D 1412-1415 1417-141A 141F-1420 1425 1428 142A-142E 1430 1432-1434 "
        "1439-143B 1440-1447 144D 144F 1451 1455-1456 1458-145C 145E-1465 1467-146E 1470-1471 1474 "
        "1476-1481 1485-1488 148A 148C 148F 1492-149E 14A4 14A8-14A9 14AD-14AF 14B2-14B3 14B9-14BA "
        "14C0-14C5 14C7-14CB 14CD 14D4-14D8 14DA-14DB 14DD-14E5 14E7-14E9 14EC-1504 1510-1514 1517-1524 "
        "1526-153D 1542 1544-154F 1552-155C 155F 1561-1563 1565-1569 1575-1578 157A 157E-1585 158A-1596 "
        "15A0 15A2-15A5 15A7-15AD 1647 166F-1676",
    ),
    "coptic": ("train", "3E2 3E4 3E6-3E7 3EE"),
    "cyrillic": (
        "train",
        "402 409 40B 414 416 426 429-42B 42E-42F 43C 452 45A 45F-460 462-464 466 468 46A 46C 46E-471 "
        "478-479 47C 47E 480 48A-48B 48D 490 493 495-496 498-49A 49C 49E-4A0 4A2 4A4 4A6 4A8-4AA 4AD "
        "4B0-4B2 4B4 4B6 4B8 4BC 4BE 4C3 4C5 4C7 4CB 4CD 4F6 4FA-4FC 4FE 502 504 506 508 50E 512 514 "
        "516-519 51E 520 522 1D2B A64C A650 A654 A656 A662 A664 A666 A66E A694",
    ),
    "greek": ("train", "370 372 37C 393 39E 3B1-3B3 3B6 3BB-3BE 3C0 3C2 3C4 3CF 3D7 3D9-3DA 3DE-3E1 3FB"),
    "latin": (
        "train",
        "46 48 4E 52 57 5A 66 6B 72 74 79 C6 DE-DF E6 111 126-127 141 14A 152-153 181 187 189-18A 190-191 "
        "193 198-199 19B 19D 1A3-1A7 1AA-1AB 1AD 1B3 1B5 1B7-1B8 1BA 1BD-1BF 1C1 1E4-1E5 1F6 21C 221 "
        "223-224 234-236 23A-23B 23E-244 246-248 24D-24F 255-257 25A 25D 260 263 267-268 26C 26E 271-272 "
        "279 27B 27D-27F 282-283 285-287 28D-28E 290-291 293 295-297 29A-29B 29D-29E 2A0-2A1 2A3-2AD 2AF "
        "1D08 1D0B 1D13-1D14 1D16 1D19-1D1A 1D1E 1D7B 1D7D 1D81 1D84 1D8A 1D8D-1D8E 1E9C-1E9F 1EFA-1EFB "
        "2C60-2C66 2C68 2C6B 2C6F 2C71-2C72 2C74 2C79-2C7A A722 A724 A727-A729 A732-A734 A736-A73A "
        "A73C-A73D A740-A741 A746-A747 A749 A74B A750-A753 A764 A766 A78E A790 A7A0-A7A8 A7AA A7FB A7FD "
        "A7FF",
    ),
    "lisu": ("train", "A4D8 A4DE"),
    "armenian": (
        "validation",
        "531-537 539 53B-53D 53F-541 543-544 546-547 549-54C 54E 550 552 554 556 564 569 56C-56D 56F "
        "573-574 576-577 579 57B-57C 57F 581 583 586",
    ),
    "lao": ("validation", "E81-E82 E84 E87-E88 E8A E8D E94-E97 E99-E9E EA1-EA3 EA5 EAA-EAB EAD-EB0 EB2 EBD EC0-EC4"),
    "nko": ("validation", "7CC 7D0-7D2 7D4 7D6-7D8 7DA 7DC-7DF 7E2-7E4 7E6-7E7"),
    "ogham": ("validation", "1682-1685 1687-168F 1691 1693-169A"),
    "georgian": (
        "test",
        "10A0-10A7 10A9-10B2 10B4-10B5 10B7-10C5 10D0-10E7 10E9-10EB 10ED-10F9 2D00-2D07 2D09-2D1A 2D1C-2D25",
    ),
    "hebrew": ("test", "5D0-5DE 5E1-5E7 5E9-5EA 5F0-5F2"),
    "old italic": ("test", "10300-10302 10304-10307 1030A-1030D 10310-10316 10318-1031D"),
    "tifinagh": ("test", "2D30-2D3D 2D3F-2D41 2D43-2D45 2D47 2D49-2D4E 2D50 2D52 2D55 2D59-2D5E 2D60-2D64"),
}
# the first word of a letter's Unicode name, where it is not the script's own
_PREFIXES = {"old": "old italic"}
# letters are kept where classes are fewest: test chooses first, train gives way
_RANKS = {"test": 0, "validation": 1, "train": 2}


def _ranges(codes: list[int]) -> str:
    """``[0x41, 0x42, 0x50]`` to ``"41-42 50"``."""
    spans: list[tuple[int, int]] = []
    for code in codes:
        if spans and spans[-1][1] == code - 1:
            spans[-1] = (spans[-1][0], code)
        else:
            spans.append((code, code))
    return " ".join(f"{a:X}" if a == b else f"{a:X}-{b:X}" for a, b in spans)


def letters_of(script: str) -> list[int]:
    """The code points of a script's letters, ascending."""
    codes: list[int] = []
    for span in LETTERS[script][1].split():
        first, _, last = span.partition("-")
        codes += range(int(first, 16), int(last or first, 16) + 1)
    return codes


def letter_table() -> dict[str, tuple[str, str]]:
    """`LETTERS` worked out anew from the fonts installed here (some 15 s): what a maintainer pastes above."""
    scripts = {script.split()[0]: script for script in LETTERS} | _PREFIXES
    chosen = select_letters(
        {word.upper(): script for word, script in scripts.items()},
        {script: _RANKS[split] for script, (split, _) in LETTERS.items()},
    )
    return {script: (split, _ranges(chosen[script])) for script, (split, _) in LETTERS.items()}


def _normals(bits: Tensor) -> Tensor:
    """Standard normal numbers from hashed bits ``[..., 2 n]``, by Box and Muller: float64 ``[..., n]``."""
    uniform = ((bits >> 11) & ((1 << 53) - 1)).double().add(0.5) / (1 << 53)
    a, b = uniform.chunk(2, -1)
    return (-2 * a.log()).sqrt() * (2 * math.pi * b).cos()


@cache
def _spline(knots: int, side: int) -> Tensor:
    """float32 ``[side, knots]``: cubic interpolation along one axis as a matrix."""
    rows = torch.eye(knots).view(1, knots, knots, 1).expand(-1, -1, -1, 4)
    return F.interpolate(rows, (side, 4), mode="bicubic", align_corners=False)[0, :, :, 0].T.contiguous()


def _smooth(values: Tensor, side: int) -> Tensor:
    """``[..., k, k]`` to ``[..., side, side]``, bicubic."""
    matrix = _spline(values.shape[-1], side)
    return matrix @ values @ matrix.T


def draw(code: int, seed: int, size: int, shapes: Tensor) -> Tensor:
    """The `DRAWINGS` drawings of one letter.

    Drawing ``i`` is a function of ``(seed, code, i)`` and the shapes alone. Letters are drawn one at a time,
    not in larger batches, so that not even rounding depends on the company a letter keeps.

    Args:
        code: the letter's code point.
        seed: which hand.
        size: side of the pictures in pixels.
        shapes: float32 ``[faces, CANVAS, CANVAS]``, distances to the letter's centre lines, one per face.

    Returns:
        uint8 ``[DRAWINGS, 1, size, size]``, ink bright.
    """
    key = fold(fold(torch.tensor(seed), code), torch.arange(DRAWINGS))
    faces = shapes[(mix(key) & 0xFFFF) % len(shapes)].unsqueeze(1)
    noise = _normals(fold(key.unsqueeze(-1), torch.arange(2 * 192))).float()
    pose, width, coarse, fine = noise[:, :8].T, noise[:, 8:24], noise[:, 24:56], noise[:, 56:184]

    # first the hand's warp, on a frame half as large again so that nothing is cut off
    side = CANVAS * 3 // 2
    theta = affine_matrix(pose[0] * 0.10, pose[1] * 0.09, pose[2] * 0.09, pose[3] * 0.12, torch.zeros(DRAWINGS, 2))
    grid = F.affine_grid(theta, [DRAWINGS, 1, side, side], align_corners=False) * 1.5
    bend = _smooth(coarse.view(-1, 2, 4, 4), side) * 0.06 + _smooth(fine.view(-1, 2, 8, 8), side) * 0.018
    warped = resample(faces, grid + bend.permute(0, 2, 3, 1))

    # then the pen and the place: the warped letter's box is brought to a drawn size, inside the picture
    drawn = warped[:, 0] < 1.0
    steps = torch.arange(side, dtype=torch.float32)
    centre, extent = [], []
    for axis in (1, 2):  # x, then y
        hit = drawn.any(axis)
        low, high = torch.where(hit, steps, side).amin(1), torch.where(hit, steps, -1.0).amax(1)
        centre.append((low + high + 1) / 2)
        extent.append(high - low + 1)
    unit = size / 28
    pen = (PEN * (0.14 * pose[4]).exp()).clamp(0.55, 1.3) * unit
    span = (16.5 * (0.15 * pose[5]).exp()).clamp(10.0, 23.0) * unit
    zoom = torch.maximum(extent[0], extent[1]) / span
    place = []
    for axis in (0, 1):
        slack = ((size - extent[axis] / zoom) / 2 - 1.3 * pen).clamp_min(0)
        place.append((0.9 * unit * pose[6 + axis]).clamp(-slack, slack))
    fine_side = 2 * size
    pixels = (torch.arange(fine_side) + 0.5) / 2 - size / 2
    x, y = (((pixels - place[axis][:, None]) * zoom[:, None] + centre[axis][:, None]) * 2 / side - 1 for axis in (0, 1))
    grid = torch.stack((x[:, None, :].expand(-1, fine_side, -1), y[:, :, None].expand(-1, -1, fine_side)), -1)
    field = resample(warped, grid) / zoom.view(-1, 1, 1, 1)
    thick = pen.view(-1, 1, 1, 1) * (1 + 0.13 * _smooth(width.view(-1, 1, 4, 4), fine_side)).clamp(0.7, 1.3)
    ink = ((thick - field) / (0.7 * unit) + 0.5).clamp(0, 1)
    return (F.avg_pool2d(ink, 2) * 255).round().to(torch.uint8)


@DATASETS.register
@dataclass(frozen=True)
class Glyphs(Dataset):
    """Letters of fifteen scripts, 20 drawings each, ink on black, grey, 28 x 28 unless ``size`` is given.

    Nothing is read from ``root``. No two letters look alike (see `glyph_shapes.select_letters`), so the A
    that Latin, Greek, Cyrillic and Old Italic share is one class, in one split. Splits are by script: those
    of the test were never seen in training.

    The classes are the same everywhere. The pictures depend on the font files that matplotlib ships (DejaVu
    and STIX) and, slightly, on Pillow's FreeType and torch's rounding; the fonts' hash is in the bank's notes
    and in the cache's key.

    Many letters are others turned by a quarter (Canadian syllabics above all), so ``rotations="classes"``
    makes classes here that no one could tell apart.

    Args:
        seed: which hand drew the letters; another seed gives other drawings of the same letters.

    Raises:
        InputError: if ``seed`` is negative or above 2**63 - 1.
    """

    name = "glyphs"
    default_size = 28
    reads_root = False
    licence = "made here; fonts: DejaVu (Bitstream Vera licence) and STIX (STIX licence), in matplotlib"

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed, "glyphs' data.options.seed", 0)

    def load_split(self, split: str) -> ImageBank:
        scripts = tuple(script for script in sorted(LETTERS) if LETTERS[script][0] == split)
        key = {
            "dataset": self.name,
            "split": split,
            "size": self.side,
            "seed": self.seed,
            "letters": [LETTERS[script] for script in scripts],
            "fonts": fonts_fingerprint(),
            "recipe": _RECIPE,
        }
        return cached_bank(key, lambda: self._build(split, scripts))

    def _build(self, split: str, scripts: tuple[str, ...]) -> ImageBank:
        letters = [(script, code) for script in scripts for code in letters_of(script)]
        drawings = self.drawings([code for _, code in letters])
        return ImageBank.from_classes(
            [(f"{script}/U+{code:04X}", images) for (script, code), images in zip(letters, drawings, strict=True)],
            dataset=f"{self.name}-seed{self.seed}",
            split=split,
            polarity="ink",
            attributes={"script": Attribute(torch.tensor([scripts.index(s) for s, _ in letters]), scripts)},
            notes=(f"drawn from matplotlib's fonts, SHA-256 {fonts_fingerprint()[:16]}",),
        )

    def drawings(self, codes: list[int]) -> list[Tensor]:
        """uint8 ``[DRAWINGS, 1, side, side]`` of each code point.

        Raises:
            InputError: if no font has a letter.
        """
        glyphs = [(code, face) for code in codes for face in faces_of(code)]
        missing = sorted(set(codes) - {code for code, _ in glyphs})
        if missing:
            raise InputError(
                f"matplotlib's fonts lack {len(missing)} letters, the first is U+{missing[0]:04X}; install "
                "matplotlib 3.8 or later."
            )
        shapes = distances(centre_lines(glyphs))
        own = shapes.split([len(faces_of(code)) for code in codes])
        # one thread: the tensors are small (on a busy machine two took ten times as long), and no rounding
        # then depends on how many there are
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return [draw(code, self.seed, self.side, shape) for code, shape in zip(codes, own, strict=True)]
        finally:
            torch.set_num_threads(threads)
