"""The contract of a data set: a frozen dataclass of options that loads the bank of a split."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from episodes.bank import ImageBank
from episodes.errors import InputError
from episodes.paths import expanded
from episodes.registry import Registry
from episodes.samplers.base import EpisodeIndices, eligible_classes
from episodes.shape import EpisodeShape

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset(ABC):
    """Base of all data sets. A subclass adds its options as fields and registers itself by name.

    Args:
        root: the folder or file the pictures are read from; None looks in ``$METAGVAE_DATA/<name>``, then
            in ``data/<name>``.
        size: side of the square pictures in pixels; None takes the data set's usual size.
        rotations: ``none``; ``classes``, four quarter turns as classes of their own, after the split
            (ProtoNet's way); ``episode``, one random turn per sampled class (MAML's way).

    Example:
        >>> from dataclasses import dataclass
        >>> from episodes.datasets import DATASETS, make_dataset
        >>> "glyphs" in DATASETS
        True
        >>> make_dataset("glyphs", size=32).side
        32
    """

    name: ClassVar[str]
    default_size: ClassVar[int]
    channels: ClassVar[int] = 1
    licence: ClassVar[str] = "unknown"
    prescribed: ClassVar[tuple[int, int] | None] = None  # (way, shot) of the test episodes, where they are fixed
    reads_root: ClassVar[bool] = True  # False of images that are drawn, or come with a package

    root: str | None = None
    size: int | None = None
    rotations: str = "none"

    def __post_init__(self) -> None:
        if self.rotations not in ("none", "classes", "episode"):
            raise InputError(f"data.rotations must be 'none', 'classes' or 'episode'; received {self.rotations!r}.")
        if self.size is not None and not 8 <= self.size <= 512:
            raise InputError(f"data.size must be between 8 and 512 pixels; received {self.size}.")

    @property
    def side(self) -> int:
        return self.size or self.default_size

    @property
    def caution(self) -> str:
        """Words on what the card of an encoder trained on it has to say of its use; empty for most."""
        return ""

    def load(self, split: str) -> ImageBank:
        """The bank of ``train``, ``validation`` or ``test``.

        Raises:
            InputError: if the split is unknown or the pictures cannot be found or read.
        """
        self.check_split(split)
        bank = self.load_split(split)
        return bank.with_rotations() if self.rotations == "classes" else bank

    def check_split(self, split: str) -> None:
        """Raises `InputError` if there is no such split."""
        if split not in SPLITS:
            raise InputError(f"unknown split {split!r} of {self.name}; allowed: {', '.join(SPLITS)}.")

    @abstractmethod
    def load_split(self, split: str) -> ImageBank:
        """The bank of a split, no rotations added."""

    def sizes(self, split: str) -> list[int] | None:
        """Pictures per class, at most, where that can be told without decoding any; else None."""
        return None

    def check_episodes(self, split: str, shape: EpisodeShape) -> None:
        """Raises `InputError` if a split cannot give such episodes, before its pictures are decoded if possible."""
        self.check_split(split)
        sizes = self.sizes(split)
        if sizes is not None:
            eligible_classes(torch.tensor(sizes), shape, f"the {split} split of {self.name}")

    def fixed_episodes(self, bank: ImageBank) -> EpisodeIndices | None:
        """The test episodes that the data set itself prescribes, of a bank it loaded; None where any may be drawn."""
        return None

    def fetch(self, folder: Path) -> None:
        """Download the data set into ``folder``, where it can be."""
        raise InputError(f"the data set '{self.name}' has nothing to fetch; `metagvae data list` says what has.")

    @property
    def remedy(self) -> str:
        """The command that fetches its files where they are missing; empty where none does."""
        return f"run `metagvae data fetch {self.name}`" if type(self).fetch is not Dataset.fetch else ""

    def find_root(self, *markers: str) -> Path:
        """The folder that holds any of the ``markers``: ``root``, else the usual places.

        Raises:
            InputError: naming every place looked in.
        """
        if self.root is not None:
            places = [expanded(self.root)]
        else:
            places = [Path("data") / self.name]
            if os.environ.get("METAGVAE_DATA"):
                places.insert(0, expanded(os.environ["METAGVAE_DATA"]) / self.name)
        for place in places:
            if any((place / marker).exists() for marker in markers):
                return place
        remedy = f", or {self.remedy}" if self.remedy else ""
        raise InputError(
            f"the data set '{self.name}' was not found: looked in {', '.join(map(str, places))} for "
            f"{' or '.join(markers)}. Set --data.root, or METAGVAE_DATA to the folder that holds "
            f"'{self.name}'{remedy}."
        )


DATASETS: Registry[type[Dataset]] = Registry("data set", "episodes.datasets")
