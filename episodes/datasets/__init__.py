"""Data sets, one file each. A new one is a file with a `Dataset` subclass under ``@DATASETS.register``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from episodes.datasets.base import DATASETS, SPLITS, Dataset
from episodes.errors import InputError


def make_dataset(name: str, further: Mapping[str, Any] | None = None, /, **options: Any) -> Dataset:
    """The data set registered as ``name`` with its options.

    Args:
        further: more of them, as a config or a line has them beside the settings of their own in ``options``.

    Raises:
        InputError: naming the known data sets, or the options that this one takes, or those given twice.
    """
    twice = sorted(set(options) & set(further or {}))
    if twice:
        raise InputError(
            f"the further options of the data set {name!r} hold {', '.join(twice)}, which has a setting of its own; "
            f"take it out of data.options (--data_options) and give data.{twice[0]} (--{twice[0]})."
        )
    every = {**options, **(further or {})}
    return DATASETS.checked(name, every)(**every)


__all__ = ["DATASETS", "SPLITS", "Dataset", "make_dataset"]
