"""MNIST (LeCun, Bottou, Bengio & Haffner, 1998): 70,000 handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from episodes.bank import ImageBank
from episodes.datasets.base import DATASETS, Dataset
from episodes.errors import InputError
from episodes.untrusted.arrays import read_npz
from episodes.whole_files import replacing

FILE = "mnist.npz"


@DATASETS.register
@dataclass(frozen=True)
class MNIST(Dataset):
    """MNIST's own split of pictures: 60,000 to train on, 10,000 to test on, the same 10 classes in both.

    For pretraining and for measuring a representation; as few-shot data it has no new classes to offer. Ink bright on
    black, grey, 28 x 28 unless ``size`` says otherwise.

    Args:
        root: a folder with ``mnist.npz``: uint8 ``train_images``, ``test_images`` ``[n, 28, 28]`` and
            ``train_labels``, ``test_labels`` ``[n]``.
        held_out: so many of the training images, spread evenly over the file, are the validation split instead; 0 for
            none. A file may be sorted by digit, so its last ones would be one digit alone.
    """

    name = "mnist"
    default_size = 28
    licence = "CC BY-SA 3.0 (as commonly stated)"

    held_out: int = 0

    def load_split(self, split: str) -> ImageBank:
        images, labels = self._split(split)
        if self.side != images.shape[-1]:
            resized = F.interpolate(images.float(), (self.side, self.side), mode="bicubic", antialias=True)
            images = resized.clamp(0, 255).round().to(torch.uint8)
        order = labels.argsort(stable=True)
        counts = torch.bincount(labels, minlength=10)
        return ImageBank(
            images=images[order],
            offsets=torch.cat((counts.new_zeros(1), counts.cumsum(0))),
            class_names=tuple(map(str, range(10))),
            dataset=self.name,
            split=split,
            polarity="ink",
        )

    def _split(self, split: str) -> tuple[Tensor, Tensor]:
        """uint8 ``[n, 1, 28, 28]`` and int64 ``[n]`` of a split, in the file's order."""
        if split == "validation" and not self.held_out:
            raise InputError(
                f"the data set '{self.name}' has no validation split; use train or test, or keep some training images "
                "for it: --data.options '{\"held_out\": 10000}'."
            )
        images, labels = self._read(self.find_root(FILE) / FILE, "test" if split == "test" else "train")
        if split == "test":
            return images, labels
        if not 0 <= self.held_out < len(images):
            raise InputError(
                f"held_out of '{self.name}' must be at least 0 and fewer than the {len(images):,} training images; "
                f"received {self.held_out}."
            )
        kept_back = torch.zeros(len(images), dtype=torch.bool)
        kept_back[(torch.arange(self.held_out) * len(images)) // max(1, self.held_out)] = True
        part = kept_back if split == "validation" else ~kept_back
        return images[part], labels[part]

    @staticmethod
    def _read(path: Path, split: str) -> tuple[Tensor, Tensor]:
        """uint8 ``[n, 1, 28, 28]`` and int64 ``[n]`` in [0, 10)."""
        try:
            images, labels = read_npz(path, f"{split}_images", f"{split}_labels")
        except InputError as error:
            raise InputError(
                f"{path} cannot be read ({error}); it must be an .npz of {split}_images and {split}_labels. "
                "Run `metagvae data fetch mnist`."
            ) from error
        if (
            images.dtype != np.uint8
            or images.shape[1:] != (28, 28)
            or labels.shape != images.shape[:1]
            or labels.dtype.kind not in "iu"
            or not len(labels)
            or labels.min() < 0
            or labels.max() > 9
        ):
            raise InputError(
                f"{path} must hold uint8 {split}_images [n, 28, 28] and whole {split}_labels [n] from 0 to 9; "
                f"received {images.dtype} {list(images.shape)} and {labels.dtype} {list(labels.shape)}."
            )
        return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))

    def fetch(self, folder: Path) -> None:
        """Download through torchvision, which checks the MD5, and write ``mnist.npz``."""
        from torchvision.datasets import MNIST as Upstream

        arrays = {}
        for split in ("train", "test"):
            try:
                source = Upstream(str(folder), train=split == "train", download=True)
            except (OSError, RuntimeError) as error:
                raise InputError(
                    f"mnist could not be fetched into {folder} ({error}). Try again, or put {FILE} there by hand."
                ) from error
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = source.data.numpy(), source.targets.numpy()
        with replacing(folder / FILE) as file:
            np.savez_compressed(file, **arrays)
