"""Contents of a data set, and which of its pictures it holds twice."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from episodes.bank import ImageBank
from episodes.datasets.base import SPLITS, Dataset
from episodes.errors import InputError


@dataclass(frozen=True)
class SplitReport:
    """One split. ``fewest``, ``median`` and ``most`` are pictures per class; ``shape`` is (C, H, W).

    ``small`` names the classes of a single picture, which no episode can use.
    """

    split: str
    classes: int
    pictures: int
    fewest: int
    median: float
    most: int
    shape: tuple[int, int, int]
    polarity: str
    fingerprint: str
    notes: tuple[str, ...]
    small: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a picture is: its split, its class, and its number in that class from 0."""

    split: str
    class_name: str
    number: int


@dataclass(frozen=True)
class DatasetReport:
    """Findings of `check_dataset`.

    Args:
        dataset: the data set's name.
        licence: its pictures' licence.
        splits: those that could be loaded.
        missing: why each of the others could not, by its name.
        duplicates: groups of pictures whose decoded pixels are the same.
    """

    dataset: str
    licence: str
    splits: tuple[SplitReport, ...]
    missing: dict[str, str]
    duplicates: tuple[tuple[Place, ...], ...]

    @property
    def crossing(self) -> tuple[tuple[Place, ...], ...]:
        """The groups of duplicates that lie in more than one split: a leak from one to the other."""
        return tuple(group for group in self.duplicates if len({place.split for place in group}) > 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and text, for JSON."""
        return {
            "dataset": self.dataset,
            "licence": self.licence,
            "splits": [
                {
                    **dataclasses.asdict(split),
                    "shape": list(split.shape),
                    "notes": list(split.notes),
                    "small": list(split.small),
                }
                for split in self.splits
            ],
            "missing": dict(self.missing),
            "duplicate_groups": len(self.duplicates),
            "crossing_groups": len(self.crossing),
            "duplicates": [[dataclasses.asdict(place) for place in group] for group in self.duplicates],
        }

    def __str__(self) -> str:
        head = f"  {'split':<11}{'classes':>8}{'pictures':>10}  {'per class':<17} {'shape':<13} fingerprint"
        lines = [f"{self.dataset} ({self.licence})", head]
        for s in self.splits:
            spread = f"{s.fewest}" if s.fewest == s.most else f"{s.fewest} to {s.most}, median {s.median:g}"
            shape = " x ".join(map(str, s.shape))
            lines.append(f"  {s.split:<11}{s.classes:>8,}{s.pictures:>10,}  {spread:<17} {shape:<13} {s.fingerprint}")
        lines += [f"  {split}: {reason}" for split, reason in self.missing.items()]
        lines += [
            f"  too small for one example and one query, {s.split}: {', '.join(s.small[:10])}"
            f"{' and more' if len(s.small) > 10 else ''}"
            for s in self.splits
            if s.small
        ]
        lines += [f"  note, {s.split}: {note}" for s in self.splits for note in s.notes]
        lines += self._duplicate_lines()
        return "\n".join(lines)

    def _duplicate_lines(self) -> list[str]:
        if not self.duplicates:
            return ["  no picture is there twice"]
        kinds: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for group in self.duplicates:
            across = tuple(split for split in SPLITS if any(place.split == split for place in group))
            kinds[across][" = ".join(dict.fromkeys(place.class_name for place in group))] += 1
        lines = [
            f"  groups of pictures with the same pixels: {len(self.duplicates)}, of them across splits: "
            f"{len(self.crossing)}"
        ]
        for across, classes in sorted(kinds.items(), key=lambda item: -len(item[0])):
            where = f"across {' and '.join(across)}" if len(across) > 1 else f"within {across[0]}"
            shown = ", ".join(f"{n} x {names}" for names, n in classes.most_common(8))
            more = f", and {len(classes) - 8} more kinds" if len(classes) > 8 else ""
            lines.append(f"    {classes.total()} {where}: {shown}{more}")
        return lines


def _report(bank: ImageBank) -> SplitReport:
    counts = bank.counts.double()
    return SplitReport(
        split=bank.split,
        classes=bank.num_classes,
        pictures=len(bank),
        fewest=int(counts.min()),
        median=float(counts.quantile(0.5)),
        most=int(counts.max()),
        shape=bank.image_shape,
        polarity=bank.polarity,
        fingerprint=bank.fingerprint,
        notes=bank.notes,
        small=tuple(name for name, count in zip(bank.class_names, bank.counts.tolist(), strict=True) if count < 2),
    )


def check_dataset(dataset: Dataset) -> DatasetReport:
    """Loads every split, counts, and looks for pictures that are there more than once.

    Duplicates are told by their decoded pixels at the data set's size, before any rotation. At a small size
    two different drawings may come out the same.

    Raises:
        InputError: if no split can be loaded; the reason is the first one's.
    """
    splits: list[SplitReport] = []
    missing: dict[str, str] = {}
    found: dict[bytes, list[Place]] = defaultdict(list)
    for split in SPLITS:
        try:
            bank = dataset.load_split(split)
        except InputError as error:
            missing[split] = str(error)
            continue
        splits.append(_report(bank))
        rows = bank.images[:].numpy().reshape(len(bank), -1)
        starts = bank.offsets.tolist()
        for row, label in enumerate(bank.labels.tolist()):
            digest = hashlib.blake2b(rows[row], digest_size=16).digest()
            found[digest].append(Place(split, bank.class_names[label], row - starts[label]))
    if not splits:
        raise InputError(next(iter(missing.values())))
    return DatasetReport(
        dataset=dataset.name,
        licence=dataset.licence,
        splits=tuple(splits),
        missing=missing,
        duplicates=tuple(tuple(places) for places in found.values() if len(places) > 1),
    )
