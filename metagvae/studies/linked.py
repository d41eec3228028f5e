"""The work of `metagvae link`: one modality from the other by linked dictionaries, on unseen drawers and on digits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from episodes import InputError
from episodes.counter_rng import check_seed, seed_for
from episodes.datasets.omniglot_strokes import StrokePairs, stroke_pairs
from metagvae.encoders.dictionary_learning import DictionaryLearner
from metagvae.encoders.linked import CodeLink
from metagvae.encoders.sparse import SparseConfig, SparseEncoder
from metagvae.evaluation.results import interval_over_units
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

EVERY = 5  # each so-many-th character is unseen
SEEN_DRAWERS = 15
FITTED = 600  # drawings that a link is solved on
SHOWN = 8
_UPDATES, _BATCH, _PATCHES = 100, 128, 8


@dataclass(frozen=True)
class Linking:
    """Two dictionaries and the link between them.

    Args:
        side: of a patch in pixels.
        stride: pixels between patches.
        atoms: of the images' dictionary.
        atoms_of_strokes: of the strokes' dictionary.
        penalty: lambda of both.
        steps: of the solver.
        grid: cells of an image, in each direction, over which the codes that say its label are pooled.
        cell: places of a patch on each side of such a cell; leave out to split the image evenly, more lets cells
            overlap.
        components: principal directions of these pooled codes that are kept; leave out to keep the codes as they are.
        bins: directions of the pen that are told apart.
        reach: patches on each side of a place that the link looks at.
        seed: of the dictionaries, and of the drawings that the link is solved on.

    Raises:
        InputError: if a number is out of its range.
    """

    side: int = 9
    stride: int = 2
    atoms: int = 128
    atoms_of_strokes: int = 192
    penalty: float = 0.3
    steps: int = 20
    grid: int = 4
    cell: int | None = None
    components: int | None = None
    bins: int = 8
    reach: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed, "--seed")
        for name, low, high in (("bins", 2, 32), ("reach", 0, 3)):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"--{name} must be between {low} and {high}; received {getattr(self, name)}.")
        self.of_labels().check()
        self.encoder(self.bins if self.bins <= 16 else 16, 28, self.atoms_of_strokes).check()

    def encoder(self, channels: int, size: int, atoms: int) -> SparseConfig:
        """The settings of one modality's encoder."""
        return SparseConfig(
            channels=channels,
            size=size,
            side=self.side,
            stride=self.stride,
            atoms=atoms,
            penalty=self.penalty,
            steps=self.steps,
            grid=1,
        )

    def of_labels(self) -> SparseConfig:
        """The settings of an encoder whose pooled codes are linked to labels."""
        encoder = self.encoder(1, 28, self.atoms)
        return replace(encoder, grid=self.grid, cell=self.cell, components=self.components)


@dataclass(frozen=True)
class LinkScore:
    """How far one way of a link is off, on drawings of one kind.

    All errors are squared differences summed over a drawing's map, in % of what the mean of the training maps leaves.

    Attributes:
        way: ``strokes from image`` or ``image from strokes``.
        unseen: ``drawers`` or ``characters``.
        drawings: how many.
        link: of the link.
        nearest: of the map that belongs to the nearest training drawing.
        own: of the target's own codes, the least that its dictionary allows.
        gain: mean over drawings of the better control's error less the link's, in % of the mean's.
        half_width: of its 95 % interval over the unseen characters, or the unseen drawers: drawings of one are alike.
    """

    way: str
    unseen: str
    drawings: int
    link: float
    nearest: float
    own: float
    gain: float
    half_width: float

    @property
    def clear_of_zero(self) -> bool:
        return self.gain > self.half_width


@dataclass(frozen=True)
class _Unseen:
    """Drawings that a link was not solved on.

    Attributes:
        kind: ``drawers`` or ``characters``.
        rows: int64 ``[M]``, their numbers.
        units: int64 ``[M]``, the drawer or character of each.
    """

    kind: str
    rows: Tensor
    units: Tensor


def _unseen(pairs: StrokePairs) -> tuple[list[_Unseen], Tensor]:
    """The unseen drawings of both kinds, and the numbers of all others."""
    new = pairs.characters % EVERY == EVERY - 1
    late = pairs.drawers >= SEEN_DRAWERS
    names = [name.partition("/")[0] for name in pairs.names]
    alphabet = torch.tensor([names.index(name) for name in names])[pairs.characters]
    hands = alphabet * (int(pairs.drawers.max()) + 1) + pairs.drawers  # drawer n of another alphabet is another person
    found = [
        _Unseen(kind, chosen.nonzero().squeeze(1), units[chosen])
        for kind, chosen, units in (("drawers", ~new & late, hands), ("characters", new, pairs.characters))
    ]
    return found, (~new & ~late).nonzero().squeeze(1)


@dataclass
class Linked:
    """The scores of a link, and pictures of what it makes."""

    linking: Linking
    scores: list[LinkScore] = field(default_factory=list)
    pictures: dict[str, list[tuple[str, Tensor]]] = field(default_factory=dict)

    def table(self) -> str:
        """A line a score."""
        lines = ["squared error in % of the training mean's                link  nearest pair  own codes"]
        for s in self.scores:
            what = f"{s.way}, unseen {s.unseen} ({s.drawings} drawings)"
            clear = "" if s.clear_of_zero else "   (not clear of zero)"
            gain = f"   gain {s.gain:.1f} ± {s.half_width:.1f}"
            lines.append(f"{what:55}{s.link:7.1f}{s.nearest:14.1f}{s.own:11.1f}{gain}{clear}")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """JSON with the settings, every score, and the command and commit that made them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "provenance": provenance(),
            "linking": asdict(self.linking),
            "about": "Squared error in % of what the mean training map leaves; gain over the better of the mean and "
            "the nearest pair, ± its 95 % interval over the unseen characters or drawers.",
            "rows": [_row(score) for score in self.scores],
            "scores": [{**asdict(score), "clear_of_zero": score.clear_of_zero} for score in self.scores],
        }
        write_json(path, content)


def _row(score: LinkScore) -> dict[str, Any]:
    """A score as a line of a table in the docs."""
    clear = "" if score.clear_of_zero else " (not clear of zero)"
    return {
        "way": score.way,
        "unseen": score.unseen,
        "drawings": score.drawings,
        "link": f"{score.link:.1f}",
        "nearest pair": f"{score.nearest:.1f}",
        "own codes": f"{score.own:.1f}",
        "gain": f"{score.gain:.1f} ± {score.half_width:.1f}{clear}",
    }


def link_strokes(linking: Linking, root: str | None = None) -> Linked:
    """Learns a dictionary of images and one of pen strokes, links them both ways, and measures the links.

    Trained on the first drawers of four fifths of the characters; measured on the other drawers of these characters,
    and on every drawing of the other characters.

    Args:
        root: see `episodes.datasets.omniglot_strokes.stroke_pairs`.

    Raises:
        InputError: if the data cannot be had.
    """
    pairs = stroke_pairs(root, bins=linking.bins)
    groups, train = _unseen(pairs)
    images = _learnt(linking, pairs.images[train], linking.atoms, 0)
    strokes = _learnt(linking, pairs.maps[train], linking.atoms_of_strokes, 1)
    found = Linked(linking)
    for way, source, target, given, wanted in (
        ("strokes from image", images, strokes, pairs.images, pairs.maps),
        ("image from strokes", strokes, images, pairs.maps, pairs.images),
    ):
        link = _link(linking, source, target, given, wanted, train)
        for unseen in groups:
            rows = unseen.rows
            made = link(given[rows])
            found.scores.append(_score(way, unseen, made, target, given, wanted, train))
            if unseen.kind == "characters":
                some = slice(0, None, max(1, len(rows) // SHOWN))
                found.pictures[way] = [
                    ("given", given[rows][some][:SHOWN]),
                    ("made", made[some][:SHOWN].clamp(0, 1)),
                    ("true", wanted[rows][some][:SHOWN]),
                ]
    return found


def _learnt(linking: Linking, pictures: Tensor, atoms: int, which: int) -> SparseEncoder:
    """An encoder whose dictionary is learnt from patches of pictures ``[M, C, size, size]``."""
    encoder = SparseEncoder(linking.encoder(pictures.shape[1], pictures.shape[-1], atoms)).eval()
    generator = torch.Generator().manual_seed(seed_for(linking.seed, 31, which))
    first = encoder.patches.drawn(pictures, _PATCHES, generator)
    learner = DictionaryLearner(first, atoms, linking.penalty, steps=max(30, linking.steps), seed=linking.seed)
    for _ in range(_UPDATES):
        rows = torch.randint(len(pictures), (_BATCH,), generator=generator)
        learner.update(encoder.patches.drawn(pictures[rows], _PATCHES, generator))
    encoder.set_dictionary(learner.dictionary)
    return encoder


def _link(
    linking: Linking, source: SparseEncoder, target: SparseEncoder, given: Tensor, wanted: Tensor, train: Tensor
) -> CodeLink:
    """The link from one modality to the other, solved on training drawings."""
    generator = torch.Generator().manual_seed(seed_for(linking.seed, 32))
    rows = train[torch.randperm(len(train), generator=generator)[:FITTED]]
    return CodeLink(source, target, linking.reach).fit(source.codes(given[rows]), target.codes(wanted[rows]))


@torch.no_grad()
def _score(
    way: str,
    unseen: _Unseen,
    made: Tensor,
    target: SparseEncoder,
    given: Tensor,
    wanted: Tensor,
    train: Tensor,
) -> LinkScore:
    """The errors of what a link made of the unseen drawings, beside the controls'."""
    rows, truth = unseen.rows, wanted[unseen.rows]
    nearest = torch.cdist(given[rows].flatten(1), given[train].flatten(1)).argmin(1)
    errors: dict[str, np.ndarray] = {
        name: (guess - truth).square().flatten(1).sum(1).double().numpy()
        for name, guess in (
            ("link", made.clamp(0, 1)),
            ("mean", wanted[train].mean(0).expand_as(truth)),
            ("nearest", wanted[train[nearest]]),
            ("own", target.rebuilt(truth).clamp(0, 1)),
        )
    }
    scale = 100 / errors["mean"].mean()
    control = min(errors["mean"], errors["nearest"], key=np.mean)
    gain = scale * (control - errors["link"])
    shares = {name: float(scale * errors[name].mean()) for name in ("link", "nearest", "own")}
    half = interval_over_units(gain, unseen.units.numpy())
    return LinkScore(way, unseen.kind, len(rows), gain=float(gain.mean()), half_width=half, **shares)
