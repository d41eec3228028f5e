"""Data sets by name. Adding one: a file with a `Dataset` subclass, and one line in the table below."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from episodes.datasets.base import SPLITS, Dataset
from episodes.datasets.digits import Digits
from episodes.datasets.folder import Folder
from episodes.datasets.glyphs import Glyphs
from episodes.datasets.lake_oneshot import LakeOneShot
from episodes.datasets.miniimagenet import MiniImageNet
from episodes.datasets.mnist import MNIST
from episodes.datasets.omniglot import Omniglot
from episodes.datasets.sprites import Sprites
from episodes.errors import InputError
from episodes.untrusted.typed import check_types

DATASETS: dict[str, type[Dataset]] = {
    cls.name: cls
    for cls in (
        Digits,
        Folder,
        Glyphs,
        LakeOneShot,
        MNIST,
        MiniImageNet,
        Omniglot,
        Sprites,
    )
}


def make_dataset(name: str, **options: Any) -> Dataset:
    """The data set registered as ``name`` with its options.

    Raises:
        InputError: naming the known data sets, or the options that this one takes.
    """
    if name not in DATASETS:
        raise InputError(f"unknown data set {name!r}; known: {', '.join(sorted(DATASETS))}.")
    allowed = [field.name for field in fields(DATASETS[name])]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise InputError(
            f"the data set '{name}' has no option {', '.join(map(repr, unknown))}; allowed: {', '.join(allowed)}."
        )
    check_types(DATASETS[name], options, f"the data set '{name}': ")
    return DATASETS[name](**options)


__all__ = ["DATASETS", "SPLITS", "Dataset", "make_dataset"]
