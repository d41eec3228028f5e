"""Classes by the data set that they come from, whatever its splits and rotations are called."""

from __future__ import annotations

import re
from collections.abc import Iterable


def family(dataset: str) -> str:
    """The data set's name without its choice of splits: ``omniglot`` of ``omniglot-lake``."""
    return dataset if dataset.startswith("folder-") else dataset.partition("-")[0]


def plain_name(name: str) -> str:
    """A class's name without its quarter turn, or the run of Lake's task that it stands in."""
    return re.sub(r"^run\d+/|/rot\d{3}$", "", name)


def plain_names(classes: Iterable[str]) -> set[str]:
    """Class names without their quarter turns and runs."""
    return {plain_name(name) for name in classes}


def classes_by_family(dataset: str, classes: Iterable[str]) -> dict[str, set[str]]:
    """The plain names of a data set's classes by family; one made of others names its classes ``FAMILY:NAME``."""
    found: dict[str, set[str]] = {}
    for name in plain_names(classes):
        source, colon, own = name.partition(":")
        if colon and not dataset.startswith("folder-"):
            found.setdefault(source, set()).add(own)
        else:
            found.setdefault(family(dataset), set()).add(name)
    return found
