"""miniImageNet as published: its split by classes (Ravi & Larochelle, ICLR 2017), and how far files differ from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import numpy as np

from episodes.errors import InputError

PER_CLASS = 600


def ravi_split(split: str) -> tuple[str, ...]:
    """The WordNet ids of a split of Ravi & Larochelle (ICLR 2017), sorted: 64 / 16 / 20."""
    table = json.loads((files("episodes") / "splits" / "miniimagenet.json").read_text(encoding="utf-8"))
    return tuple(table["splits"][split].split())


def check_classes(names: Iterable[str], split: str, where: Path) -> None:
    """Raises InputError unless all names are classes of the split."""
    wanted = set(ravi_split(split))
    strange = sorted(set(names) - wanted)
    if strange:
        raise InputError(
            f"{where} has {len(strange)} classes that are not in Ravi & Larochelle's {split} split, the "
            f"first is {strange[0][:100]!r}; allowed are its {len(wanted)} WordNet ids, such as {min(wanted)}. Is "
            "it another split's file, or another data set?"
        )


def differences(counts: dict[str, int], split: str, prints: dict[bytes, list[str]]) -> tuple[str, ...]:
    """Differences of this bank from the published one: missing classes or pictures, duplicates within it."""
    notes = []
    whole = len(ravi_split(split))
    if len(counts) < whole:
        notes.append(f"{len(counts)} of the {split} split's {whole} classes")
    short = [n for n in counts.values() if n != PER_CLASS]
    if short:
        notes.append(
            f"{len(short)} of {len(counts)} classes hold {min(short)} to {max(short)} pictures; the "
            f"published set has {PER_CLASS} in each"
        )
    twins = [names for names in prints.values() if len(names) > 1]
    if twins:
        shown = "; ".join(" = ".join(names) for names in twins[:8])
        notes.append(f"byte-identical pictures within the {split} split, {len(twins)} groups: {shown}")
    return tuple(notes)


def check_published(images: np.ndarray, members: dict[str, list[int]], split: str, path: Path) -> None:
    """Raises `InputError` unless a file holds what was published of a split, whole."""
    lacking = sorted(set(ravi_split(split)) - set(members))
    if lacking:
        raise InputError(
            f"{path} lacks {len(lacking)} of the {len(ravi_split(split))} classes of the {split} split, the first is "
            f"{lacking[0]}; it is not the published file."
        )
    label, numbers = next(((n, m) for n, m in members.items() if len(m) != PER_CLASS), ("", []))
    if label:
        raise InputError(
            f"{path} has {len(numbers)} pictures of {label} instead of {PER_CLASS}; it is not the published file."
        )
    if images.shape[1:] != (84, 84, 3):
        raise InputError(f"{path} has pictures of shape {list(images.shape[1:])} instead of [84, 84, 3].")
    for label, numbers in members.items():  # the published set has 8 pairs of equal pictures, no two pairs in one class
        different = len({hashlib.sha256(images[number].tobytes()).digest() for number in numbers})
        flat = next((number for number in numbers if images[number].min() == images[number].max()), None)
        if different < len(numbers) - 2 or flat is not None:
            raise InputError(
                f"{path}: {label} has {different} different pictures of {len(numbers)}"
                f"{'' if flat is None else f', and picture {flat} is of one colour'}; it is not the published file."
            )
