"""miniImageNet (Vinyals et al., NeurIPS 2016): 100 ImageNet classes of 600 pictures, 84 x 84.

The split by classes, 64 / 16 / 20, is that of Ravi & Larochelle (ICLR 2017).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from episodes.bank import ImageBank
from episodes.datasets.base import DATASETS, SPLITS, Dataset
from episodes.datasets.cache import cached_bank
from episodes.datasets.miniimagenet_split import check_classes, check_published, differences
from episodes.errors import InputError
from episodes.untrusted.archives import Source
from episodes.untrusted.faults import ReadFault
from episodes.untrusted.pickles import load_arrays
from episodes.untrusted.sources import open_picture, to_tensor
from episodes.untrusted.tables import read_table, table_rows

_CSV = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
# learn2learn says "validation", the files that others hand round say "val"
_PICKLES = {
    split: [f"mini-imagenet-cache-{word}.pkl" for word in words]
    for split, words in {"train": ["train"], "validation": ["validation", "val"], "test": ["test"]}.items()
}
# learn2learn's own class keeps these links inside its constructor, beside a `pickle.load` of what arrives
_MIRRORS = ("https://zenodo.org/record/7978538/files/mini-imagenet-cache-{}.pkl",)


@DATASETS.register
@dataclass(frozen=True)
class MiniImageNet(Dataset):
    """miniImageNet, colour photographs, 84 x 84 unless ``size`` says otherwise.

    Args:
        root: a folder with ``train.csv``, ``val.csv``, ``test.csv`` (columns ``filename,label``) beside a
            folder ``images`` or zip files of the pictures (``images.zip`` alone, else all of them); or with the
            files ``mini-imagenet-cache-{train,validation,test}.pkl`` that learn2learn downloads. The latter are
            read without running anything in them.
        centre: share of the side of each picture that is kept, round its middle, from 0.5 to 1, before it is resized.
            84 / 92 is the way published test images are usually prepared, resized to 92 and cut to 84 (Chen et al., A
            Closer Look at Few-shot Classification, ICLR 2019): things are then as large as in windows trained on.

    Raises:
        InputError: if ``centre`` is out of its range.
    """

    name = "miniimagenet"
    default_size = 84
    channels = 3
    licence = "ImageNet terms: non-commercial research"

    centre: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.5 <= self.centre <= 1:
            raise InputError(f"data.options.centre must be between 0.5 and 1; received {self.centre}.")

    def load_split(self, split: str) -> ImageBank:
        """The bank of a split; its notes tell what is missing from the published set and what is there twice.

        Raises:
            InputError: if files are missing or damaged, or hold classes of another split.
        """
        root = self.find_root(_CSV[split], *_PICKLES[split])
        if (root / _CSV[split]).exists():
            return self._load_csv(root, split)
        path = next(root / name for name in _PICKLES[split] if (root / name).exists())
        return self._load_pickle(path, split)

    def _cut(self) -> dict[str, float]:
        """The part of the cache's key that tells the centre; none of whole pictures, which earlier versions wrote."""
        return {} if self.centre == 1 else {"centre": float(self.centre)}

    def _load_csv(self, root: Path, split: str) -> ImageBank:
        table = root / _CSV[split]
        text = read_table(table, "filename,label")
        sources = [Source(path) for path in _pictures(root)]
        prints = [source.fingerprint for source in sources]
        key = {
            "dataset": self.name,
            "split": split,
            "size": self.side,
            "table": hashlib.sha256(text.encode()).hexdigest(),
            "source": prints[0] if len(prints) == 1 else prints,
            **self._cut(),
        }
        try:
            return cached_bank(key, lambda: self._decode_csv(sources, table, text, split))
        finally:
            for source in sources:
                source.close()

    def _decode_csv(self, sources: list[Source], table: Path, text: str, split: str) -> ImageBank:
        wanted = _read_table(table, text, split)
        by_file: dict[str, list[tuple[Source, str]]] = defaultdict(list)
        for source in sources:
            for name in source.names:
                by_file[PurePosixPath(name).name].append((source, name))
        absent = [file for names in wanted.values() for file in names if file not in by_file]
        if absent:
            total = sum(map(len, wanted.values()))
            places = " and ".join(str(source.path) for source in sources)
            raise InputError(
                f"{places} lacks {len(absent):,} of the {total:,} pictures that {table} lists, the "
                f"first is {absent[0]}. Fetch the pictures again, or cut the table to those that are there."
            )
        classes = []
        prints: dict[bytes, list[str]] = defaultdict(list)
        for label, names in sorted(wanted.items()):
            pictures = []
            for file in names:
                (source, name), *others = by_file[file]
                data = source.read(name)
                for other, its_name in others:
                    if other.read(its_name) != data:
                        raise InputError(
                            f"{file} is {name} of {source.path} and {its_name} of {other.path}, and the two differ; "
                            "leave one of them out."
                        )
                prints[hashlib.sha256(data).digest()].append(file)
                picture = open_picture(data, f"{name} in {source.path}")
                pictures.append(to_tensor(picture, self.side, 3, centre=self.centre))
            classes.append((label, torch.stack(pictures)))
        counts = {label: len(names) for label, names in wanted.items()}
        notes = differences(counts, split, prints)
        return ImageBank.from_classes(classes, dataset=self.name, split=split, polarity="light", notes=notes)

    def _load_pickle(self, path: Path, split: str) -> ImageBank:
        # hashing most of a gigabyte at every start would cost seconds: its size, time and ends stand for it
        if not path.is_file():  # a pipe would be waited on for ever
            raise InputError(f"{path} is not a regular file; fetch it again.")
        try:
            info = path.stat()
            with path.open("rb") as file:
                ends = file.read(2**20)
                file.seek(max(0, info.st_size - 2**20))
                ends += file.read()
        except OSError as error:
            raise ReadFault(path, error) from error
        key = {
            "dataset": self.name,
            "split": split,
            "size": self.side,
            "pickle": [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, hashlib.sha256(ends).hexdigest()],
            **self._cut(),
        }
        return cached_bank(key, lambda: self._decode_pickle(path, split))

    def _decode_pickle(self, path: Path, split: str) -> ImageBank:
        images, members = _read_pickle(path, split)
        prints: dict[bytes, list[str]] = defaultdict(list)
        classes = []
        for label, indices in sorted(members.items()):
            for number in indices:
                prints[hashlib.sha256(images[number].tobytes()).digest()].append(f"{label}[{number}]")
            if images.shape[1:3] == (self.side, self.side) and self.centre == 1:
                stack = torch.from_numpy(images[indices].transpose(0, 3, 1, 2).copy())
            else:
                pictures = (Image.fromarray(images[n]) for n in indices)
                stack = torch.stack([to_tensor(one, self.side, 3, centre=self.centre) for one in pictures])
            classes.append((label, stack))
        notes = differences({label: len(indices) for label, indices in members.items()}, split, prints)
        return ImageBank.from_classes(classes, dataset=self.name, split=split, polarity="light", notes=notes)

    def fetch(self, folder: Path) -> None:
        """Download the three pickles (1.8 GB in all) with learn2learn's downloader, and check the content of each.

        It must hold every class of its split, 600 different pictures in each, 84 x 84 in colour.

        Files that are there already are left as they are.

        Raises:
            InputError: if learn2learn is missing, the mirror cannot be reached, or sends something else.
        """
        try:
            from learn2learn.data.utils import download_file
        except ImportError as error:
            raise InputError(
                f"miniImageNet is downloaded through learn2learn, which cannot be imported ({error}). "
                "Install it with `./scripts/install.sh`; a plain `pip install learn2learn` fails on "
                "Python 3.11 and later."
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            target = folder / _PICKLES[split][0]
            if any((folder / name).exists() for name in _PICKLES[split]):
                continue
            beside = target.with_suffix(".part")
            failures = []
            for mirror in _MIRRORS:
                try:
                    download_file(mirror.format(split), str(beside))
                    check_published(*_read_pickle(beside, split), split, beside)
                except Exception as error:  # the downloader lets every kind of network error through
                    beside.unlink(missing_ok=True)
                    failures.append(f"{mirror.format(split)}: {error}")
                else:
                    beside.rename(target)
                    break
            else:
                raise InputError(
                    f"miniImageNet's {split} split could not be fetched ({'; '.join(failures)}). Try again "
                    f"later, or put {target.name} into {folder} yourself."
                )


def _pictures(root: Path) -> list[Path]:
    """The folder ``images``, ``images.zip``, or all zip files of pictures in ``root``."""
    for only in (root / "images", root / "images.zip"):
        if only.exists():
            return [only]
    zips = sorted(path for path in root.glob("*.zip") if not path.name.startswith("."))
    if not zips:
        raise InputError(
            f"miniImageNet's pictures were not found: {root} needs a folder 'images', a zip file 'images.zip', or zip "
            "files of any name, which are read together, beside its csv files."
        )
    return zips


def _read_table(table: Path, text: str, split: str) -> dict[str, list[str]]:
    """File names by class, in the table's order."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for line, (filename, label) in table_rows(text, str(table), ("filename", "label")):
        if not filename or not label:
            raise InputError(f"{table}, line {line}, lacks a filename or a label.")
        wanted[label].append(PurePosixPath(filename).name)
    if not wanted:
        raise InputError(f"{table} lists no pictures; a filename and a label on each line are needed.")
    check_classes(wanted, split, table)
    file, times = Counter(name for names in wanted.values() for name in names).most_common(1)[0]
    if times > 1:
        raise InputError(f"{table} lists {file} {times} times; a picture belongs to one class, once.")
    return dict(wanted)


def _read_pickle(path: Path, split: str) -> tuple[np.ndarray, dict[str, list[int]]]:
    """uint8 ``[M, H, W, 3]`` and the picture numbers of each class."""
    content = load_arrays(path)
    shape = "a dict of 'image_data', uint8 [pictures, 84, 84, 3], and 'class_dict', class -> picture numbers"
    if not isinstance(content, dict) or not {"image_data", "class_dict"} <= set(content):
        raise InputError(f"{path} should hold {shape}; it holds a {type(content).__name__} without these.")
    images, table = content["image_data"], content["class_dict"]
    if not isinstance(images, np.ndarray):
        raise InputError(f"{path} should hold {shape}; its image_data is a {type(images).__name__}.")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"{path} should hold {shape}; it has {images.dtype} {list(images.shape)}.")
    if not isinstance(table, dict) or not table:
        raise InputError(f"{path} should hold {shape}; its class_dict is not a dict with classes.")
    check_classes(map(str, table), split, path)
    members = {}
    for label, values in table.items():
        # nested lists that share their parts would become an array without end
        flat = isinstance(values, np.ndarray) or (isinstance(values, list | tuple) and set(map(type, values)) <= {int})
        numbers = np.asarray(values) if flat else np.empty(0)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers):
            raise InputError(f"{path}: the class {label} should have a list of picture numbers.")
        if numbers.min() < 0 or numbers.max() >= len(images):
            raise InputError(
                f"{path}: the class {label} has a picture number outside 0 to {len(images) - 1}; the file "
                "may be damaged: fetch it again."
            )
        members[str(label)] = [int(n) for n in numbers]
    if len({n for numbers in members.values() for n in numbers}) < sum(map(len, members.values())):
        raise InputError(f"{path} lists a picture twice; each belongs to one class, once. Fetch it again.")
    return images, members
