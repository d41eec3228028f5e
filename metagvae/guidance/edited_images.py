"""Edited images: each attribute's units taken from another image of the batch, and a reader of what is then drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes.batch_share import held
from metagvae.compute.batch_statistics import batch_rows
from metagvae.encoders.norm import full_precision


class ImageReader(nn.Module):
    """Images ``[B, C, H, W]`` to logits ``[B, values]`` of each attribute: two convolutions and a hidden layer.

    Without normalisation, so that a verdict does not depend on the batch.

    Args:
        channels, size: of the images.
        sizes: values of each attribute.
        width: feature maps of the first convolution; twice as many after it.

    Example:
        >>> import torch
        >>> from metagvae.guidance.edited_images import ImageReader
        >>> reader = ImageReader(1, 28, {"digit": 10, "slant": 2})
        >>> {name: list(logits.shape) for name, logits in reader(torch.rand(3, 1, 28, 28)).items()}
        {'digit': [3, 10], 'slant': [3, 2]}
    """

    def __init__(self, channels: int, size: int, sizes: Mapping[str, int], width: int = 16) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, width, 5, padding=2), nn.Conv2d(width, 2 * width, 5, padding=2)
        self.hidden = nn.Linear(2 * width * (size // 4) ** 2, 4 * width)
        self.heads = nn.ModuleDict({name: nn.Linear(4 * width, values) for name, values in sizes.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = F.relu(F.max_pool2d(self.first(images), 2))
        x = F.relu(F.max_pool2d(self.second(x), 2)).flatten(1)
        x = F.relu(self.hidden(x))
        return {name: full_precision(head(x)) for name, head in self.heads.items()}


class Exchange(nn.Module):
    """Latents whose groups of units come from other rows of the batch, of each group from another row.

    Row ``i`` has group number ``k`` (from 1) of row ``i - k * count``, and its own other units.

    Args:
        groups: latent unit numbers by attribute.
        latent: units in all.

    Example:
        >>> import torch
        >>> from metagvae.guidance.edited_images import Exchange
        >>> z = torch.tensor([[0., 0., 0.], [1., 1., 1.], [2., 2., 2.]])
        >>> edited, labels = Exchange({"digit": [0], "slant": [1]}, latent=3)(z, {"digit": torch.tensor([5, 6, 7])})
        >>> edited.tolist(), labels["digit"].tolist()
        ([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 2.0]], [7, 5, 6])
    """

    columns: Tensor  # bool [groups, latent]

    def __init__(self, groups: Mapping[str, Sequence[int]], latent: int) -> None:
        super().__init__()
        columns = torch.zeros(len(groups), latent, dtype=torch.bool, device="cpu")
        for row, units in zip(columns, groups.values(), strict=True):
            row[list(units)] = True
        self.register_buffer("columns", columns, persistent=False)
        self.names = tuple(groups)

    def forward(self, z: Tensor, labels: Mapping[str, Tensor], count: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
        """Edited latents ``[B, latent]``, and the attributes int64 ``[B]`` that images of them are to show.

        Args:
            labels: by attribute; one that is left out is not told of.
            count: rows that are warps of one image: units come from another image.
        """
        share = held()
        own = slice(None) if share.whole else share.rows(len(z))
        every, told, edited = batch_rows(z), {}, z
        for number, (name, columns) in enumerate(zip(self.names, self.columns, strict=True), start=1):
            edited = torch.where(columns, every.roll(number * count, 0)[own], edited)
            if name in labels:
                told[name] = batch_rows(labels[name]).roll(number * count, 0)[own]
        return edited, told
