"""Omniglot (Lake, Salakhutdinov & Tenenbaum, Science 2015): 1,623 characters of 50 alphabets, 20 drawings."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

import torch

from episodes.bank import Attribute, ImageBank
from episodes.datasets.base import DATASETS, Dataset
from episodes.datasets.cache import cached_bank
from episodes.errors import InputError
from episodes.untrusted.archives import Source
from episodes.untrusted.picture_files import is_picture
from episodes.untrusted.sources import open_picture, to_tensor

PARTS = ("images_background", "images_evaluation")
SPLITTINGS = ("vinyals", "lake", "lake-standard", "lake-minimal")
# upstream's images_background_small1: the "minimal" background set of Lake et al.
MINIMAL = {"Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"}


def _numbers(text: str) -> list[int]:
    """``"1-3,7"`` to ``[1, 2, 3, 7]``."""
    numbers: list[int] = []
    for span in text.split(","):
        first, _, last = span.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def lake_split(splits: str, split: str, background: list[str], evaluation: list[str]) -> set[str]:
    """The alphabets of a split, given those of upstream's two parts by name.

    Raises:
        InputError: if ``lake-standard`` is asked for validation alphabets, or a minimal alphabet is missing.
    """
    if splits == "lake-minimal" and not set(background) >= MINIMAL:
        raise InputError(
            f"omniglot's splits 'lake-minimal' need the alphabets {', '.join(sorted(MINIMAL))}; missing: "
            f"{', '.join(sorted(MINIMAL - set(background)))}. Run `metagvae data fetch omniglot`."
        )
    if split == "test":
        return set(evaluation)
    if splits == "lake":
        return set(background[:-5]) if split == "train" else set(background[-5:])
    if splits == "lake-minimal":
        return MINIMAL if split == "train" else set(background) - MINIMAL
    if split == "validation":
        raise InputError(
            "omniglot's splits 'lake-standard' train on all 30 background alphabets and leave none for validation; "
            "set validation.every 0, or choose splits 'lake'."
        )
    return set(background)


def vinyals_split(split: str) -> set[tuple[str, str]]:
    """The (alphabet, character) pairs of a split of Vinyals et al. (NeurIPS 2016): 1,028 / 172 / 423."""
    table = json.loads((files("episodes") / "splits" / "omniglot_vinyals.json").read_text(encoding="utf-8"))
    return {
        (alphabet, f"character{number:02d}")
        for alphabet, spans in table["splits"][split].items()
        for number in _numbers(spans)
    }


@DATASETS.register
@dataclass(frozen=True)
class Omniglot(Dataset):
    """Omniglot, ink bright on black, grey, 28 x 28 unless ``size`` says otherwise.

    Of each class the ``alphabet`` is known, of each image the ``drawer``, numbered anew in every alphabet: the n-th
    drawings of its characters are by one person.

    Args:
        splits: ``vinyals`` (1,028 / 172 / 423 characters; default), or one whose test split is the 20 evaluation
            alphabets: ``lake`` (train: the 30 background alphabets less the validation ones; validation: the last
            5 of the 30 by name), ``lake-standard`` (train: all 30, no validation), ``lake-minimal`` (train: the 5
            of upstream's small background set 1; validation: the other 25).
        root: a folder with ``images_background`` and ``images_evaluation`` as upstream's zips or as
            folders (torchvision's ``omniglot-py`` is one).
    """

    name = "omniglot"
    default_size = 28
    licence = "MIT (brendenlake/omniglot)"

    splits: str = "vinyals"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.splits not in SPLITTINGS:
            raise InputError(f"omniglot's splits must be one of {', '.join(SPLITTINGS)}; received {self.splits!r}.")

    def load_split(self, split: str) -> ImageBank:
        sources = self._sources()
        key = {
            "dataset": self.name,
            "split": split,
            "splits": self.splits,
            "size": self.side,
            "image_attributes": ["drawer"],  # an entry of an older version has none
            "sources": [source.fingerprint for source in sources],
        }
        try:
            return cached_bank(key, lambda: self._decode(sources, split))
        finally:
            for source in sources:
                source.close()

    def _sources(self) -> list[Source]:
        names = [name for part in PARTS for name in (f"{part}.zip", part)]
        root = self.find_root(*names, *(f"omniglot-py/{name}" for name in names))
        if not any((root / name).exists() for name in names):
            root = root / "omniglot-py"
        sources = []
        for part in PARTS:
            path = root / f"{part}.zip"
            path = path if path.exists() else root / part
            if not path.exists():
                raise InputError(
                    f"omniglot is incomplete: {root} has neither {part}.zip nor a folder {part}; "
                    "both parts are needed. Run `metagvae data fetch omniglot`."
                )
            sources.append(Source(path))
        return sources

    def _members(self, sources: list[Source], split: str) -> dict[tuple[str, str], list[tuple[Source, str]]]:
        found: dict[tuple[str, str], list[tuple[Source, str]]] = defaultdict(list)
        parts: dict[str, int] = {}
        for part, source in enumerate(sources):
            for name in source.names:
                path = PurePosixPath(name)
                if is_picture(name) and len(path.parts) >= 3:
                    alphabet, character = path.parts[-3:-1]
                    found[alphabet, character].append((source, name))
                    parts[alphabet] = part
        if self.splits == "vinyals":
            wanted = vinyals_split(split)
        else:
            background = sorted(alphabet for alphabet, part in parts.items() if part == 0)
            evaluation = sorted(alphabet for alphabet, part in parts.items() if part == 1)
            chosen = lake_split(self.splits, split, background, evaluation)
            wanted = {pair for pair in found if pair[0] in chosen}
        missing = sorted(wanted - found.keys())
        if missing:
            raise InputError(
                f"omniglot is incomplete: {len(missing)} of {len(wanted)} characters of the {split} split are "
                f"missing, the first is {'/'.join(missing[0])}. Run `metagvae data fetch omniglot`."
            )
        if not wanted:
            raise InputError(
                f"omniglot is incomplete: {', '.join(str(source.path) for source in sources)} hold no image of the "
                f"{split} split ({self.splits}). Run `metagvae data fetch omniglot`."
            )
        return {pair: found[pair] for pair in sorted(wanted)}

    def _decode(self, sources: list[Source], split: str) -> ImageBank:
        members = self._members(sources, split)
        classes = []
        for (alphabet, character), entries in members.items():
            drawings = [
                # 1-bit pictures widen to 8 bits inside to_tensor; ink is black on white: invert once
                to_tensor(open_picture(source.read(name), f"{name} in {source.path}"), self.side, 1, invert=True)
                for source, name in entries
            ]
            classes.append((f"{alphabet}/{character}", torch.stack(drawings)))
        alphabets = sorted({alphabet for alphabet, _ in members})
        values = torch.tensor([alphabets.index(alphabet) for alphabet, _ in members])
        counts = [len(drawings) for _, drawings in classes]
        drawers = Attribute(
            torch.cat([torch.arange(count) for count in counts]), tuple(map(str, range(1, max(counts) + 1)))
        )
        return ImageBank.from_classes(
            classes,
            dataset=f"{self.name}-{self.splits}",
            split=split,
            polarity="ink",
            attributes={"alphabet": Attribute(values, tuple(alphabets))},
            image_attributes={"drawer": drawers},
        )

    def fetch(self, folder: Path) -> None:
        """Download both parts through torchvision, which checks their MD5."""
        from torchvision.datasets import Omniglot as Upstream

        for background in (True, False):
            try:
                Upstream(str(folder), background=background, download=True)
            except (OSError, RuntimeError) as error:
                raise InputError(
                    f"omniglot could not be fetched into {folder} ({error}). Try again, or put images_background.zip "
                    "and images_evaluation.zip there by hand."
                ) from error
