"""Pictures that an encoder takes for the same: positives found without labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from episodes import ImageBank, InputError
from metagvae.compute.device import Device
from metagvae.encoders.warp_average import WarpAverage
from metagvae.evaluation.embedding import embed_bank

BLOCK = 512  # rows of the distance matrix at a time


def mutual_neighbours(features: Tensor, count: int) -> Tensor:
    """int64 ``[M, 1 + count]``: each row's own number, then its mutual nearest neighbours.

    Two rows are mutual neighbours if each is among the ``count`` nearest of the other (Euclidean). Where a row has
    fewer, its own number stands in their place.

    Args:
        features: ``[M, D]``.

    Raises:
        InputError: if there are not more rows than neighbours asked for.
    """
    if not 1 <= count < len(features):
        raise InputError(
            f"neighbours must be between 1 and {len(features) - 1} for so many pictures; received {count}."
        )
    own = torch.arange(len(features), device=features.device)
    squares = features.square().sum(-1)
    found = []
    for rows in own.split(BLOCK):
        distance = torch.addmm(squares.expand(len(rows), -1), features[rows], features.T, alpha=-2)
        distance[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        found.append(distance.topk(count, largest=False).indices)
    nearest = torch.cat(found)
    mutual = (nearest[nearest] == own[:, None, None]).any(-1)
    return torch.cat((own[:, None], torch.where(mutual, nearest, own[:, None])), 1)


def picture_groups(encoder: nn.Module, bank: ImageBank, count: int, device: Device, warps: int = 4) -> Tensor:
    """int64 ``[M, 1 + count]``: each picture of a bank and its `mutual_neighbours` by an encoder's features.

    Of pictures that a bank holds in quarter turns only the upright ones are compared, and what is found holds for the
    other turns: a picture that looks like its own turn must not be taken for it. A neighbour that has no such turn is
    left out of them.

    Args:
        warps: average features with those of so many warped copies, which makes fewer neighbours wrong.
    """

    def near(pictures: ImageBank) -> Tensor:
        average = WarpAverage(encoder, warps) if warps else encoder
        return mutual_neighbours(embed_bank(average.eval(), pictures, device), count).to(bank.device)

    turns = _turns(bank)
    upright = torch.nonzero(turns[:, 0] >= 0).flatten()
    if len(upright) == bank.num_classes:
        return near(bank)
    found = near(bank.subset(upright.cpu()).to(bank.device))
    own = torch.nonzero(turns[bank.labels, 0] >= 0).flatten()  # the picture that each row of found is of
    groups = torch.arange(len(bank), device=bank.device).unsqueeze(1).repeat(1, 1 + count)
    for quarter in range(4):
        there = turns[bank.labels[own], quarter]
        turned, moved = there >= 0, own + bank.offsets[there.clamp(min=0)] - bank.offsets[bank.labels[own]]
        rows, near_them = moved[turned], found[turned]
        groups[rows] = torch.where(turned[near_them], moved[near_them], rows.unsqueeze(1))
    return groups


def _turns(bank: ImageBank) -> Tensor:
    """int64 ``[classes, 4]``: the class that is an upright one turned by so many quarters, -1 where there is none.

    By their names, as `ImageBank.with_rotations` gives them: a bank made of several knows no attribute of a part.
    """
    numbers = {name: number for number, name in enumerate(bank.class_names)}
    found = []
    for number, name in enumerate(bank.class_names):
        stem, _, turn = name.rpartition("/rot")
        if f"{stem}/rot000" not in numbers or turn not in ("000", "090", "180", "270"):
            found.append([number, -1, -1, -1])
        elif turn == "000":
            found.append([numbers.get(f"{stem}/rot{90 * quarter:03d}", -1) for quarter in range(4)])
        else:
            found.append([-1] * 4)
    return torch.tensor(found, device=bank.offsets.device)
