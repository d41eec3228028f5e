from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from episodes import ImageBank, InputError
from episodes.datasets.side_by_side import side_by_side
from metagvae.compute.device import Device
from metagvae.training.pseudo_classes import BLOCK, mutual_neighbours, picture_groups


def by_hand(features: Tensor, count: int) -> list[set[int]]:
    """Mutual neighbours by sorting every distance."""
    order = torch.cdist(features, features).fill_diagonal_(torch.inf).argsort(1)[:, :count].tolist()
    return [{j for j in order[i] if i in order[j]} for i in range(len(features))]


@pytest.mark.parametrize("count", [1, 4])
def test_neighbours_are_those_found_by_hand(count: int) -> None:
    features = torch.randn(BLOCK + 30, 3, generator=torch.Generator().manual_seed(0))
    groups = mutual_neighbours(features, count)
    assert groups.shape == (len(features), 1 + count)
    assert groups[:, 0].tolist() == list(range(len(features)))
    assert [set(row) - {i} for i, row in enumerate(groups.tolist())] == by_hand(features, count)
    with pytest.raises(InputError, match="between 1 and 4"):
        mutual_neighbours(features[:5], 5)


class Mean(nn.Module):
    """A picture's brightness: the same for all its turns."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3)).unsqueeze(-1)


def test_a_picture_is_never_taken_for_its_own_turn(bank: ImageBank) -> None:
    turned = bank.with_rotations()
    groups = picture_groups(Mean(), turned, 3, Device.choose("cpu", "float32"), warps=0)
    plain = picture_groups(Mean(), bank, 3, Device.choose("cpu", "float32"), warps=0)
    turn = turned.attributes["rotation"].values[turned.labels]
    assert (turn[groups] == turn.unsqueeze(-1)).all()
    upright = torch.nonzero(turn == 0).flatten()
    for quarter in range(4):
        rows = torch.nonzero(turn == quarter).flatten()
        assert torch.equal(groups[rows], rows[plain])
        assert torch.equal(turned.images[rows], torch.rot90(turned.images[upright], quarter, (-2, -1)))


def test_nor_where_only_some_of_the_classes_are_turned(bank: ImageBank) -> None:
    """A bank of two sources of which one is turned, as `synthetic` is with rotations: no attribute tells of it."""
    device, half = Device.choose("cpu", "float32"), bank.num_classes // 2
    parts = [bank.subset(torch.arange(half)), bank.subset(torch.arange(half, bank.num_classes))]
    both = side_by_side([("plain", parts[0]), ("turned", parts[1].with_rotations())], "both", "train")
    assert "rotation" not in both.attributes
    groups = picture_groups(Mean(), both, 3, device, warps=0)
    turn = torch.tensor([int(name[-3:]) if "/rot" in name else 0 for name in both.class_names])[both.labels]
    assert (turn[groups] == turn.unsqueeze(-1)).all()
    upright = torch.nonzero(turn == 0).flatten()
    assert torch.equal(groups[upright], upright[picture_groups(Mean(), bank, 3, device, warps=0)])
    for quarter in (1, 2, 3):  # of the neighbours those that are turned too
        rows, base = (torch.nonzero(turn == angle).flatten() for angle in (90 * quarter, 0))
        base = base[-len(rows) :]
        known = groups[base] >= len(parts[0])
        moved = torch.full((len(both),), -1)
        moved[base] = rows
        assert torch.equal(groups[rows], torch.where(known, moved[groups[base]], rows.unsqueeze(1)))
