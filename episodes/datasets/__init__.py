"""Data sets, one file each. A new one is a file with a `Dataset` subclass under ``@DATASETS.register``."""

from __future__ import annotations

from typing import Any

from episodes.datasets.base import DATASETS, SPLITS, Dataset


def make_dataset(name: str, **options: Any) -> Dataset:
    """The data set registered as ``name`` with its options.

    Raises:
        InputError: naming the known data sets, or the options that this one takes.
    """
    return DATASETS.checked(name, options)(**options)


__all__ = ["DATASETS", "SPLITS", "Dataset", "make_dataset"]
