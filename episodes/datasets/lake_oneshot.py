"""Lake's one-shot task (Lake, Salakhutdinov & Tenenbaum, Science 2015): runs of 20 characters of one alphabet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from episodes.bank import Attribute, ImageBank
from episodes.datasets.base import DATASETS, Dataset
from episodes.datasets.cache import cached_bank
from episodes.datasets.omniglot import PARTS, Omniglot
from episodes.errors import InputError
from episodes.samplers.base import EpisodeIndices
from episodes.untrusted.archives import Source
from episodes.untrusted.picture_files import is_picture
from episodes.untrusted.sources import open_picture, to_tensor

WAY = 20
_ORIGIN = "python/one-shot-classification/all_runs.zip of the repository brendenlake/omniglot"


def _pixels(data: bytes, where: str) -> bytes:
    """A drawing's ink, to tell whether two files hold the same one."""
    return open_picture(data, where).convert("1").tobytes()


@DATASETS.register
@dataclass(frozen=True)
class LakeOneShot(Dataset):
    """The prescribed test episodes of Omniglot: 20 ways, 1 shot, 1 query each, all of one alphabet.

    In a run one person drew the 20 training pictures and another the 20 test pictures. A test set only: train
    on omniglot with splits ``lake-standard`` (30 background alphabets) or ``lake-minimal`` (5 of them). The bank
    holds 20 classes per run, each its training picture and its test picture. Every picture is looked up among
    the evaluation alphabets' drawings, so that a class has its character's name and a learner that was trained
    on it can be refused.

    Read from the folder of ``omniglot``: ``images_evaluation`` as there, and the runs as upstream's
    ``all_runs.zip``, as zips named ``all_runs*.zip`` with some of the 20 runs each, or as a folder ``all_runs``.
    """

    name = "lake-oneshot"
    default_size = 28
    licence = "MIT (brendenlake/omniglot)"
    prescribed = (WAY, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rotations != "none":
            raise InputError(f"Lake's task has prescribed episodes without rotations; received {self.rotations!r}.")

    def load_split(self, split: str) -> ImageBank:
        if split != "test":
            raise InputError(
                f"the data set 'lake-oneshot' is test-only; it has no {split} split. Train on omniglot with "
                "--data.options '{splits: lake-standard}' or lake-minimal."
            )
        drawings, runs = self._sources()
        key = {
            "dataset": self.name,
            "split": split,
            "size": self.side,
            "sources": [source.fingerprint for source in (drawings, *runs)],
        }
        try:
            return cached_bank(key, lambda: self._decode(drawings, runs))
        finally:
            for source in (drawings, *runs):
                source.close()

    def fixed_episodes(self, bank: ImageBank) -> EpisodeIndices:
        """The runs, in order."""
        runs = bank.num_classes // WAY
        classes = torch.arange(bank.num_classes, device=bank.device)
        return EpisodeIndices(
            classes=classes.view(runs, WAY),
            images=torch.stack((2 * classes, 2 * classes + 1), -1).view(runs, WAY, 2),
            shot=1,
        )

    def fetch(self, folder: Path) -> None:
        raise InputError(f"the runs are not fetched: put {_ORIGIN} beside images_evaluation.zip, in omniglot's folder.")

    def _sources(self) -> tuple[Source, list[Source]]:
        """The evaluation alphabets' drawings, and where runs are."""
        names = [f"{PARTS[1]}.zip", PARTS[1]]
        root = Omniglot(root=self.root).find_root(*names)
        drawings = next(root / name for name in names if (root / name).exists())
        runs = sorted(path for path in root.glob("all_runs*") if path.is_dir() or path.suffix == ".zip")
        if not runs:
            raise InputError(f"{root} has no all_runs.zip, which holds Lake's runs: put {_ORIGIN} there.")
        return Source(drawings), [Source(path) for path in runs]

    def _decode(self, drawings: Source, runs: list[Source]) -> ImageBank:
        known: dict[bytes, str] = {}
        for name in drawings.names:
            path = PurePosixPath(name)
            if is_picture(name) and len(path.parts) >= 3:
                known[_pixels(drawings.read(name), name)] = "/".join(path.parts[-3:-1])
        classes, alphabets, numbers = [], [], []
        for number, (source, labels) in sorted(_find_runs(runs).items()):
            for training, test in _pairs(source, labels):
                pair = [open_picture(source.read(name), f"{name} in {source.path}") for name in (training, test)]
                characters = {known.get(_pixels(source.read(name), name)) for name in (training, test)}
                character = characters.pop()
                if characters or character is None:
                    raise InputError(
                        f"{training} and {test} in {source.path} are not two drawings of one character in "
                        f"{drawings.path}; the two do not belong together."
                    )
                images = torch.stack([to_tensor(picture, self.side, 1, invert=True) for picture in pair])
                classes.append((f"run{number:02d}/{character}", images))
                alphabets.append(character.partition("/")[0])
                numbers.append(number)
        names, run_names = sorted(set(alphabets)), sorted(set(numbers))
        return ImageBank.from_classes(
            classes,
            dataset="omniglot-lake-oneshot",
            split="test",
            polarity="ink",
            attributes={
                "alphabet": Attribute(torch.tensor([names.index(a) for a in alphabets]), tuple(names)),
                "run": Attribute(torch.tensor([run_names.index(n) for n in numbers]), tuple(map(str, run_names))),
            },
            notes=(f"{len(run_names)} of Lake's 20 runs: {', '.join(map(str, run_names))}",),
        )


def _find_runs(sources: list[Source]) -> dict[int, tuple[Source, str]]:
    """Each run's source and the name of its label file there; of a run that is there twice, the first."""
    found: dict[int, tuple[Source, str]] = {}
    for source in sources:
        for name in source.names:
            match = re.search(r"run(\d+)/class_labels\.txt$", name)
            if match:
                found.setdefault(int(match[1]), (source, name))
    if not found:
        raise InputError(
            f"no run in {', '.join(str(source.path) for source in sources)}: none holds a runNN/class_labels.txt."
        )
    return found


def _pairs(source: Source, labels: str) -> list[tuple[str, str]]:
    """Names of the 20 (training, test) pictures of a run, by training picture.

    A line of the label file names a test picture, then its class's training picture, from the run's parent folder.
    """
    parent = labels.rsplit("/", 2)[0] + "/" if labels.count("/") > 1 else ""
    lines = [line.split() for line in source.read(labels).decode("utf-8", errors="replace").splitlines()]
    pairs = sorted((parent + line[1], parent + line[0]) for line in lines if len(line) == 2)
    if len({training for training, _ in pairs}) != WAY or len(pairs) != WAY:
        raise InputError(
            f"{labels} in {source.path} should name {WAY} test pictures of {WAY} classes; it has "
            f"{len(pairs)} such lines."
        )
    return pairs
