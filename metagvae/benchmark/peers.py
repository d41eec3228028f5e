"""The peers' own ways to draw tasks; each is imported where it is needed, and missed with a sentence."""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Any
from unittest.mock import patch

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from episodes import ImageBank
from metagvae.interop.easyfsl import require_easyfsl
from metagvae.interop.learn2learn import require_learn2learn


def learn2learn() -> Any:
    """The package, gym's notice that it has retired left unprinted."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return require_learn2learn()


def easyfsl() -> Any:
    """The package ``easyfsl``, its samplers imported too."""
    package = require_easyfsl()
    importlib.import_module("easyfsl.samplers")
    return package


def fused_tasks(bank: ImageBank, way: int, per_class: int, as_float: bool = False) -> Any:
    """learn2learn's fused, compiled task transforms over a bank's pictures in memory: its fastest way.

    ``sample()`` gives pictures ``[N * (K + Q), C, H, W]`` and labels; they lie on the bank's device.
    """
    l2l = learn2learn()
    images = bank.images[:].float().div_(255) if as_float else bank.images[:]
    offsets = bank.offsets.tolist()
    members = {number: list(range(offsets[number], offsets[number + 1])) for number in range(bank.num_classes)}
    dataset = l2l.data.MetaDataset(TensorDataset(images, bank.labels), labels_to_indices=members)
    transforms = l2l.data.transforms
    return l2l.data.Taskset(
        dataset,
        [
            transforms.FusedNWaysKShots(dataset, n=way, k=per_class),
            transforms.LoadData(dataset),
            transforms.RemapLabels(dataset),
            transforms.ConsecutiveLabels(dataset),
        ],
        num_tasks=-1,
    )


class _Pictures(Dataset[tuple[Tensor, int]]):
    """A bank's pictures in memory, in the form that easyfsl's sampler reads."""

    def __init__(self, bank: ImageBank) -> None:
        self.images, self.labels = bank.images, bank.labels.tolist()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.labels[index]

    def __len__(self) -> int:
        return len(self.labels)

    def get_labels(self) -> list[int]:
        return self.labels


def _take_arguments(self: object, data_source: object = None) -> None:
    """The constructor that torch's Sampler once had, and that easyfsl 1.5 still calls."""


def easyfsl_tasks(bank: ImageBank, way: int, shot: int, query: int) -> Iterator[Any]:
    """easyfsl's task sampler behind a DataLoader without workers, its constructor patched; tasks without end."""
    samplers = easyfsl().samplers
    pictures = _Pictures(bank)
    with patch.object(Sampler, "__init__", _take_arguments):
        sampler = samplers.TaskSampler(pictures, way, shot, query, 2**31)
    return iter(DataLoader(pictures, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn))
