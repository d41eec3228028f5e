"""A group of latent units, picked out of a latent without the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Units(nn.Module):
    """Columns of ``[..., latent]``: a view where their numbers follow each other, else by an index beside the weights.

    An index that is a list of Python numbers would be copied to the device at every call.

    Args:
        numbers: of the units.
    """

    numbers: Tensor

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__()
        first, count = numbers[0] if numbers else 0, len(numbers)
        self.span = slice(first, first + count) if list(numbers) == list(range(first, first + count)) else None
        self.register_buffer("numbers", torch.tensor(list(numbers), dtype=torch.int64), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        return z[..., self.span] if self.span is not None else z.index_select(-1, self.numbers)
