"""The work of `metagvae disentangle`: scores of encoders on pictures of known factors, beside their few-shot error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from episodes import ImageBank, InputError
from episodes.datasets import make_dataset
from episodes.datasets.factors import FactorPictures, WarpedPictures
from episodes.datasets.sprites import SpritePictures
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.encoders.controls import CONTROLS, make_control
from metagvae.encoders.encoder import Encoder
from metagvae.evaluation.class_interval import ClassInterval, percent
from metagvae.evaluation.codes import encode, encode_halves
from metagvae.evaluation.disentanglement import scores, shown
from metagvae.evaluation.text_table import text_table
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.studies.compare import compare
from metagvae.studies.methods import describe
from metagvae.studies.naming import short_names
from metagvae.studies.protocol import Head, Scoring
from metagvae.zoo.build import check_pictures
from metagvae.zoo.leakage import refuse_trained_classes


@dataclass(frozen=True)
class Scores:
    """Of one encoder's one group of features. ``error`` is its few-shot error in [0, 1], None for sprites."""

    encoder: str
    features: str
    units: int
    scores: dict[str, float]
    error: float | None
    half_width: float | None
    over_classes: ClassInterval | None = None


@dataclass
class ScoreTable:
    """All rows, and what they rest on."""

    rows: list[Scores]
    scoring: Scoring
    methods: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> list[dict[str, str]]:
        """Rows of text, a table's cells by column."""
        error = f"{self.scoring.way}w {self.scoring.shot}s error, %"
        return [
            {
                "encoder": row.encoder,
                "features": f"{row.features} ({row.units})",
                **{name: shown(value) for name, value in row.scores.items()},
                error: "–" if row.error is None else percent(row.error, row.half_width or 0, row.over_classes),
            }
            for row in self.rows
        ]

    def table(self) -> str:
        """Plain text, one row per encoder and group of features."""
        rows = self.plain()
        return text_table([list(rows[0]), *(list(row.values()) for row in rows)])

    def save(self, path: Path) -> None:
        """JSON with the rows of a table, every number, and the command and commit that made them."""
        content = {
            "provenance": provenance(),
            "rows": self.plain(),
            "scoring": {key: value for key, value in asdict(self.scoring).items() if key != "root"},
            "scores": [asdict(row) for row in self.rows],
            "methods": self.methods,
        }
        write_json(path, content)


def _load(name: str, group: str, bank: ImageBank, train: ImageBank) -> nn.Module | None:
    """An encoder that returns a group of features, or None if it has no such group."""
    if name in CONTROLS:
        return make_control(name, train) if group == "latent" else None
    encoder = zoo.open(name).encoder()
    if group not in ("latent", "backbone", *encoder.units) or (group != "latent" and len(encoder.units) == 1):
        return None  # a plain VAE's content is its whole latent
    encoder.features = [group]
    check_pictures(encoder, bank, name)
    return encoder


def _asked(
    names: Sequence[str], groups: Sequence[str], bank: ImageBank, train: ImageBank
) -> list[tuple[str, str, nn.Module]]:
    """Every encoder with every group of features that it has, loaded before the first is measured.

    Raises:
        InputError: if an encoder cannot be had or does not take the images, or there is nothing to score.
    """
    loaded = [(name, group, _load(name, group, bank, train)) for name in names for group in groups]
    asked = [(name, group, encoder) for name, group, encoder in loaded if encoder is not None]
    if not asked:
        raise InputError(f"none of {', '.join(names)} has features {' or '.join(groups)}.")
    return asked


def _blocks(encoder: nn.Module, group: str, units: int) -> list[list[int]]:
    """The groups of units of a whole latent; of other features each unit by itself."""
    if isinstance(encoder, Encoder) and group == "latent":
        return list(encoder.units.values())
    return [[unit] for unit in range(units)]


def _pictures(scoring: Scoring, bank: ImageBank) -> FactorPictures:
    return WarpedPictures(bank) if scoring.pictures == "warped" else SpritePictures(bank.image_shape[-1])


def score_encoders(names: Sequence[str], groups: Sequence[str], scoring: Scoring, device: Device) -> ScoreTable:
    """Scores every encoder's every group of features, and measures its few-shot error with nearest prototypes.

    Raises:
        InputError: if an encoder or the data cannot be had, or do not fit each other.
    """
    own, drawn = scoring.pictures == "factors", scoring.pictures == "sprites"
    first = next((zoo.open(name).encoder() for name in names if name not in CONTROLS), None)
    size = first.config.size if isinstance(first, Encoder) else None
    plain = make_dataset("sprites" if drawn else scoring.data, root=scoring.root, size=size)
    bank = plain.load(scoring.split)
    train = plain.load("train") if any(name in CONTROLS for name in names) else bank
    pictures: FactorPictures | None = None if own else _pictures(scoring, bank)
    if not drawn:
        for name in names:
            refuse_trained_classes(name, bank)
    rows, methods = [], {}
    short = short_names(names)
    for name, group, encoder in _asked(names, groups, bank, train):
        device.place(encoder)
        if pictures is None:
            fitted, scored = encode_halves(encoder, bank, scoring.count, scoring.seed, device)
        else:
            fitted = encode(encoder, pictures, scoring.count, 2 * scoring.seed, device)
            scored = encode(encoder, pictures, scoring.count // 2, 2 * scoring.seed + 1, device)
        error = half_width = over = None
        if not drawn:
            (result,) = compare(
                make_dataset(scoring.data, root=scoring.root, size=size, rotations=scoring.rotations),
                encoders=[name],
                protocol=scoring.protocol,
                head=Head(features=None if name in CONTROLS else [group]),
                device=device,
            ).results
            error, half_width, over = result.error, result.half_width, result.over_classes
        units = fitted.codes.shape[1]
        found = scores(fitted, scored, _blocks(encoder, group, units) if own else None)
        rows.append(Scores(short[name], group, units, found, error, half_width, over))
        methods[short[name]] = describe(name)
    return ScoreTable(rows, scoring, methods)
