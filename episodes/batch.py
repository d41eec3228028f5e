"""EpisodeBatch: support and query tensors of T episodes, and where each picture came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from episodes.bank import ImageBank
from episodes.devices import exact
from episodes.samplers.base import EpisodeIndices


@dataclass(frozen=True)
class EpisodeBatch:
    """T episodes of N ways, K shots, Q queries. A picture's label is its position on the N axis.

    Args:
        images: float32 ``[T, N, K + Q, C, H, W]`` in [0, 1]; as gathered, uint8; or features ``[T, N, K + Q, D]``.
        shot: K; the first K on the third axis are support.
        classes: int64 ``[T, N]``, class numbers in the bank.
        indices: int64 ``[T, N, K + Q]``, image numbers in the bank.

    Example:
        >>> import torch
        >>> from episodes import Episodes, EpisodeSampler, EpisodeShape, ImageBank, make_batch
        >>> images = torch.randint(0, 256, (8, 6, 1, 28, 28), dtype=torch.uint8)
        >>> bank = ImageBank.from_classes([(f"class {i}", x) for i, x in enumerate(images)], dataset="noise")
        >>> batch = make_batch(bank, EpisodeSampler(bank, Episodes(EpisodeShape(5, 1, 2))).span(0, 3))
        >>> batch.support.shape, batch.query.shape
        (torch.Size([3, 5, 1, 1, 28, 28]), torch.Size([3, 5, 2, 1, 28, 28]))
        >>> batch.query_labels[0].tolist()
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    """

    images: Tensor
    shot: int
    classes: Tensor
    indices: Tensor

    @property
    def support(self) -> Tensor:
        """``[T, N, K, ...]``."""
        return self.images[:, :, : self.shot]

    @property
    def query(self) -> Tensor:
        """``[T, N, Q, ...]``."""
        return self.images[:, :, self.shot :]

    @property
    def tasks(self) -> int:
        return self.images.shape[0]

    @property
    def way(self) -> int:
        return self.images.shape[1]

    @property
    def queries(self) -> int:
        return self.images.shape[2] - self.shot

    def scaled(self) -> EpisodeBatch:
        """Of a uint8 batch, the same in float32 of [0, 1]."""
        return replace(self, images=to_float(self.images))

    def to(self, device: torch.device | str) -> EpisodeBatch:
        """The same batch on ``device``; from pinned memory the copy overlaps with other work."""
        device = exact(device)
        if self.images.device == device:
            return self
        images, classes, indices = (x.to(device, non_blocking=True) for x in (self.images, self.classes, self.indices))
        return EpisodeBatch(images, self.shot, classes, indices)

    def tasks_from(self, start: int, count: int) -> EpisodeBatch:
        """``count`` of its tasks, a view."""
        if start == 0 and count == self.tasks:
            return self
        part = slice(start, start + count)
        return EpisodeBatch(self.images[part], self.shot, self.classes[part], self.indices[part])

    @cached_property
    def query_labels(self) -> Tensor:
        """int64 ``[T, N * Q]``: the way of each query, in the order of ``query`` flattened."""
        ways = torch.arange(self.way, device=self.images.device)
        return ways.repeat_interleave(self.queries).expand(self.tasks, -1)


def to_float(images: Tensor) -> Tensor:
    """uint8 in [0, 255] to float32 in [0, 1]."""
    return images.float().div_(255)


def gather_batch(bank: ImageBank, drawn: EpisodeIndices, pin: bool = False) -> EpisodeBatch:
    """The pictures as the bank holds them, uint8: one gather, and the quarter turns if any were drawn.

    Args:
        pin: into page-locked memory, from which a GPU copies by itself.
    """
    images = bank.gather(drawn.images, pin)
    if drawn.turns is not None:
        turns = drawn.turns[:, :, None, None, None, None]
        turned = images
        for quarter in (1, 2, 3):
            turned = torch.where(turns == quarter, torch.rot90(images, quarter, (-2, -1)), turned)
        images = turned
    return EpisodeBatch(images, drawn.shot, drawn.classes, drawn.images)


def make_batch(bank: ImageBank, drawn: EpisodeIndices) -> EpisodeBatch:
    """`gather_batch`, converted to float32 in [0, 1]."""
    return gather_batch(bank, drawn).scaled()
