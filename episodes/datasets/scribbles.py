"""Scribbles: characters of invented scripts, drawn from random motor programs by invented hands; made, not fetched.

A character is what its pen does: one to four strokes, each straight, bent or with corners, each begun on its own or
where an earlier one begins, ends or passes (the relations of Lake, Salakhutdinov & Tenenbaum, Science 2015). The
strokes of a script are variations of a few, so that its characters resemble each other as those of an alphabet do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from episodes.bank import Attribute, ImageBank
from episodes.counter_rng import check_seed
from episodes.datasets.base import DATASETS, SPLITS, Dataset
from episodes.datasets.cache import cached_bank
from episodes.errors import InputError

DRAWINGS = 20
CHARACTERS = 30  # of a script
SCRIPTS = {"train": 40, "validation": 8, "test": 8}
PEN = 0.78  # mean half width of the pen, in pixels of a 28-pixel picture; as that of `glyphs`
EDGE = 0.9  # from full ink to paper, in the same unit
POINTS = 16  # along a part of a stroke
_RECIPE = 1  # raise it when the pictures change: caches made before are then not read


@dataclass(frozen=True)
class Stroke:
    """Parts of a stroke, one after the other without lifting the pen; ``P`` of them, angles in radians.

    Attributes:
        angle: in which direction the pen sets out.
        lengths: of the parts, ``[P]``, in units of about half a character's height.
        bends: by how much each part turns along its way, ``[P]``; 0 is straight.
        corners: by how much the pen turns before each part, ``[P]``, the first 0.
    """

    angle: float
    lengths: np.ndarray
    bends: np.ndarray
    corners: np.ndarray

    def path(self, angle: np.ndarray, lengths: np.ndarray, bends: np.ndarray, corners: np.ndarray) -> np.ndarray:
        """Points ``[D, P * POINTS + 1, 2]`` of D drawings, from the origin on.

        Each drawing has its own deviations ``[D, ...]``: those of angles are added, those of lengths are logarithms.
        """
        along = (np.arange(POINTS) + 0.5) / POINTS - 0.5
        own = self.bends + bends
        turned = np.cumsum(self.corners + corners + own, 1) - own / 2  # direction in the middle of each part
        ways = (self.angle + angle)[:, None, None] + turned[..., None] + own[..., None] * along
        steps = (self.lengths * np.exp(lengths))[..., None] / POINTS
        moves = np.stack((steps * np.cos(ways), steps * np.sin(ways)), -1).reshape(len(angle), -1, 2)
        return np.concatenate((np.zeros((len(angle), 1, 2)), np.cumsum(moves, 1)), 1)


@dataclass(frozen=True)
class Begin:
    """Place at which a stroke begins.

    Attributes:
        on: number of the earlier stroke that it begins on; -1 for a place of its own.
        share: how far along that stroke, 0 to 1.
        own: how far along the stroke itself the place is, 0 for its beginning, 0.5 for its middle.
        place: the place of its own, ``[2]``.
    """

    on: int
    share: float
    own: float
    place: np.ndarray


Program = list[tuple[Stroke, Begin]]


def _stroke(draw: np.random.Generator) -> Stroke:
    parts = int(draw.choice(3, p=(0.55, 0.3, 0.15))) + 1
    angle = draw.choice(8) * math.pi / 4 + 0.15 * draw.standard_normal()
    straight = draw.random(parts) < 0.45
    turns = draw.choice((-1.0, 1.0), parts) * draw.uniform(0.5, 4.0 if parts == 1 else 3.0, parts)
    kinks = draw.choice((-1.0, 1.0), parts) * draw.uniform(1.0, 2.6, parts) * (draw.random(parts) < 0.7)
    kinks[0] = 0
    return Stroke(angle, draw.uniform(0.5, 1.7, parts), np.where(straight, 0, turns), kinks)


def _varied(stroke: Stroke, draw: np.random.Generator) -> Stroke:
    """A stroke of the script as one of its characters has it: turned or mirrored perhaps, and of another size."""
    turn, mirror = draw.choice((0, 0, 0, 1, 2, 3)) * math.pi / 2, draw.choice((1.0, 1.0, -1.0))
    size = math.exp(0.25 * draw.standard_normal())
    return Stroke(mirror * stroke.angle + turn, stroke.lengths * size, mirror * stroke.bends, mirror * stroke.corners)


def _program(repertoire: list[Stroke], draw: np.random.Generator) -> Program:
    """Strokes of one character and where each begins."""
    count = int(draw.choice(4, p=(0.22, 0.35, 0.28, 0.15))) + 1
    program: Program = []
    for number in range(count):
        known = repertoire[draw.integers(len(repertoire))]
        stroke = _varied(known, draw) if draw.random() < 0.8 else _stroke(draw)
        free = number == 0 or draw.random() < 0.3
        on = -1 if free else int(draw.integers(number))
        share, own = float(draw.choice((0.0, 1.0, draw.random()))), float(draw.choice((0.0, 0.0, 0.5)))
        program.append((stroke, Begin(on, share, own, draw.uniform(-0.9, 0.9, 2))))
    return program


def _paths(program: Program, hand: np.ndarray, draw: np.random.Generator) -> list[np.ndarray]:
    """Each stroke's points ``[D, points, 2]`` in D drawings; ``hand`` ``[D]`` says how unsteady each hand is."""
    count, shaken = len(hand), hand[:, None]
    strokes: list[np.ndarray] = []
    for stroke, begin in program:
        noise = draw.standard_normal((3, count, len(stroke.lengths))) * np.array((0.1, 0.14, 0.12))[:, None, None]
        lengths, bends, corners = noise * shaken
        bends = bends * (1 + 0.5 * np.abs(stroke.bends))
        corners[:, 0] = 0
        path = stroke.path(0.1 * hand * draw.standard_normal(count), lengths, bends, corners)
        if begin.on < 0:
            place = begin.place + 0.1 * shaken * draw.standard_normal((count, 2))
        else:
            earlier = strokes[begin.on]
            share = begin.share + (0.06 * hand * draw.standard_normal(count) if 0 < begin.share < 1 else 0 * hand)
            where = (share.clip(0, 1) * (earlier.shape[1] - 1)).round().astype(int)
            place = earlier[np.arange(count), where] + 0.04 * shaken * draw.standard_normal((count, 2))
        strokes.append(path - path[:, [round(begin.own * (path.shape[1] - 1))]] + place[:, None])
    return strokes


@dataclass(frozen=True)
class Hands:
    """Habits of the `DRAWINGS` drawers of a script, ``[DRAWINGS]`` each.

    Attributes:
        rotation, shear, aspect, size, pen: of all that a hand draws; angle, tangent and logarithms.
        shake: how unsteady it is; 1 on average.
    """

    rotation: np.ndarray
    shear: np.ndarray
    aspect: np.ndarray
    size: np.ndarray
    pen: np.ndarray
    shake: np.ndarray

    @classmethod
    def of(cls, draw: np.random.Generator) -> Hands:
        rotation, shear, aspect, size, pen, shake = draw.standard_normal((6, DRAWINGS))
        return cls(0.06 * rotation, 0.1 * shear, 0.09 * aspect, 0.17 * size, 0.14 * pen, np.exp(0.25 * shake))


def _placed(strokes: list[np.ndarray], hands: Hands, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Pieces of the pen's way ``[D, pieces, 2, 2]`` on paper of side 28, and its half width ``[D]``."""
    paths, count = np.concatenate(strokes, 1), DRAWINGS
    rotation = hands.rotation + 0.05 * draw.standard_normal(count)
    cos, sin, wide = np.cos(rotation), np.sin(rotation), np.exp(hands.aspect)
    skewed = paths @ np.stack((np.stack((wide, 0 * wide), -1), np.stack((hands.shear, 1 / wide), -1)), 1)
    turned = skewed @ np.stack((np.stack((cos, sin), -1), np.stack((-sin, cos), -1)), 1)
    low, high = turned.min(1), turned.max(1)
    span = (16.5 * np.exp(hands.size + 0.08 * draw.standard_normal(count))).clip(10, 23)
    pen = (PEN * np.exp(hands.pen)).clip(0.55, 1.3)
    zoom = span / np.maximum((high - low).max(1), 0.3)
    slack = (14 - (high - low) * zoom[:, None] / 2 - pen[:, None] - 0.7).clip(0)
    shift = (0.9 * draw.standard_normal((count, 2))).clip(-slack, slack)
    points = (turned - (low + high)[:, None] / 2) * zoom[:, None, None] + 14 + shift[:, None]
    lifted = np.cumsum([stroke.shape[1] for stroke in strokes])[:-1] - 1
    pieces = np.delete(np.stack((points[:, :-1], points[:, 1:]), 2), lifted, 1)
    return torch.from_numpy(pieces).float(), torch.from_numpy(pen).float()


def _distances(grid: Tensor, pieces: Tensor) -> Tensor:
    """From each point ``[G, 2]`` to the nearest of the straight pieces ``[pieces, 2, 2]``, ``[G]``."""
    starts, ways = pieces[:, 0], pieces[:, 1] - pieces[:, 0]
    ahead = grid @ ways.T - (starts * ways).sum(1)
    along = (ahead / ways.square().sum(1).clamp(min=1e-12)).clamp(0, 1)
    x, y = (grid[:, axis, None] - starts[:, axis] - along * ways[:, axis] for axis in (0, 1))
    return (x.square() + y.square()).amin(1).sqrt()


def inked(pieces: Tensor, pen: Tensor, size: int) -> Tensor:
    """The pictures that a round pen leaves, uint8 ``[D, 1, size, size]``, ink bright.

    Args:
        pieces: float32 ``[D, pieces, 2, 2]``, both ends of each straight piece of its way, x to the right and y
            downwards on paper of side 28.
        pen: float32 ``[D]``, its half width in the same unit.

    Example:
        >>> import torch
        >>> from episodes.datasets.scribbles import inked
        >>> bar = torch.tensor([[[[7.0, 14.0], [21.0, 14.0]]]])
        >>> inked(bar, torch.ones(1), size=28)[0, 0, ::13, 14].tolist()
        [0, 255, 0]
    """
    axis = (torch.arange(size) + 0.5) * (28 / size)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).flatten(0, 1)
    away = torch.stack([_distances(grid, own) for own in pieces])
    ink = ((pen[:, None] - away) / EDGE + 0.5).clamp(0, 1).view(-1, 1, size, size)
    return (ink * 255).round().to(torch.uint8)


@DATASETS.register
@dataclass(frozen=True)
class Scribbles(Dataset):
    """Characters of invented scripts, 20 drawings each, ink on black, grey, 28 x 28 unless ``size`` is given.

    Nothing is read from ``root``. A split is its own scripts of 30 characters: 40 for training, 8 for validation, 8 for
    the test. A script has a repertoire of strokes and 20 hands of its own: drawing i of each of its characters is by
    hand i, with its slant, size, pen and unsteadiness. Nothing keeps two characters of a script from looking alike.

    Args:
        seed: which scripts; another seed gives other scripts, characters and hands.

    Raises:
        InputError: if ``seed`` is negative or above 2**63 - 1.

    Example:
        >>> from episodes.datasets.scribbles import Scribbles
        >>> Scribbles(seed=1).character("test", script=0, number=3).shape
        torch.Size([20, 1, 28, 28])
    """

    name = "scribbles"
    default_size = 28
    reads_root = False
    licence = "MIT (drawn by this package)"

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed, "scribbles' data.options.seed", 0)

    def load_split(self, split: str) -> ImageBank:
        key = {"dataset": self.name, "split": split, "size": self.side, "seed": self.seed, "recipe": _RECIPE}
        return cached_bank(key, lambda: self._build(split))

    def sizes(self, split: str) -> list[int]:
        return [DRAWINGS] * (SCRIPTS[split] * CHARACTERS)

    def character(self, split: str, script: int, number: int) -> Tensor:
        """The drawings of one character, uint8 ``[DRAWINGS, 1, side, side]``; a function of its place and seed alone.

        Raises:
            InputError: if there is no such split, script or character.
        """
        if split not in SPLITS or not (0 <= script < SCRIPTS[split] and 0 <= number < CHARACTERS):
            raise InputError(
                f"scribbles has {', '.join(f'{count} scripts for {part}' for part, count in SCRIPTS.items())}, of "
                f"{CHARACTERS} characters, counted from 0; received script {script}, character {number} of {split!r}."
            )
        key = [self.seed, SPLITS.index(split), script]
        of_script = np.random.default_rng(key)
        repertoire, hands = [_stroke(of_script) for _ in range(10)], Hands.of(of_script)
        draw = np.random.default_rng([*key, number])
        paths = _paths(_program(repertoire, draw), hands.shake, draw)
        return inked(*_placed(paths, hands, draw), self.side)

    def _build(self, split: str) -> ImageBank:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the tensors are small, and no rounding then depends on how many threads there are
        try:
            classes = [
                (f"{split}{script:02d}/character{number + 1:02d}", self.character(split, script, number))
                for script in range(SCRIPTS[split])
                for number in range(CHARACTERS)
            ]
        finally:
            torch.set_num_threads(threads)
        names = tuple(f"{split}{script:02d}" for script in range(SCRIPTS[split]))
        return ImageBank.from_classes(
            classes,
            dataset=f"{self.name}-seed{self.seed}",
            split=split,
            polarity="ink",
            attributes={"script": Attribute(torch.arange(len(names)).repeat_interleave(CHARACTERS), names)},
        )
