"""Classes found from hands: against every permutation, against planted classes, and blind to the true ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import pytest
import torch
from torch import Tensor

from episodes import Attribute, ImageBank
from experiments.hand_matching import classes_by_hands, matched

ALPHABETS, CHARACTERS, DRAWERS = 2, 7, 5


def cost(features: Tensor, clusters: Tensor) -> float:
    """Squared distances to the clusters' means."""
    rows, own = features.flatten(0, 1), clusters.flatten()
    means = torch.stack([rows[own == one].mean(0) for one in range(len(features))])
    return float((rows - means[own]).square().sum())


def test_no_other_matching_is_cheaper() -> None:
    torch.manual_seed(0)
    for _ in range(5):
        features = torch.randn(3, 1, 2, dtype=torch.float64) + 0.6 * torch.randn(3, 4, 2, dtype=torch.float64)
        orders = [torch.tensor(order) for order in permutations(range(3))]
        # of one drawer the order is free, as clusters have no names
        every = [torch.stack((orders[0], *rest), 1) for rest in product(orders, repeat=3)]
        found = matched(features)
        assert cost(features, found) == pytest.approx(min(cost(features, each) for each in every))


def planted(noise: float) -> tuple[ImageBank, Tensor]:
    """Upright images whose only pixel is their number, and features of a character and a drawer."""
    torch.manual_seed(1)
    classes = ALPHABETS * CHARACTERS
    numbers = torch.arange(classes * DRAWERS, dtype=torch.uint8).view(classes, DRAWERS, 1, 1, 1)
    bank = ImageBank.from_classes(
        [(f"character{number}", each) for number, each in enumerate(numbers)],
        attributes={"alphabet": Attribute(torch.arange(classes) // CHARACTERS, ("a", "b"))},
    )
    features = torch.randn(classes, 1, 6) + 0.3 * torch.randn(ALPHABETS, 1, DRAWERS, 6).expand(
        -1, CHARACTERS, -1, -1
    ).flatten(0, 1)
    return bank, (features + noise * torch.randn(classes, DRAWERS, 6)).flatten(0, 1)


def test_planted_classes_are_found_with_every_image_once_and_each_drawer_once_a_class() -> None:
    bank, features = planted(0.05)
    made, right = classes_by_hands(bank, features, seed=0)
    assert right == {"drawings in the right cluster": 1.0, "pairs of one character": 1.0}
    assert sorted(made.images.flatten().tolist()) == list(range(len(bank)))
    shown = made.images.view(-1, DRAWERS).long()
    assert (shown % DRAWERS == torch.arange(DRAWERS)).all()
    assert len((shown // DRAWERS).unique(dim=0)) == bank.num_classes
    assert (shown // DRAWERS // CHARACTERS == made.attributes["alphabet"].values[:, None]).all()
    assert made.image_shape == bank.image_shape
    assert not {name.split("/")[1] for name in made.class_names} & set(bank.class_names)


def test_the_share_that_is_right_is_counted_by_hand_and_by_chance_without_information() -> None:
    bank, features = planted(2.0)
    made, right = classes_by_hands(bank, features, seed=0)
    own = made.images.view(-1, DRAWERS).long() // DRAWERS
    pairs = [own[:, i] == own[:, j] for i in range(DRAWERS) for j in range(DRAWERS) if i != j]
    assert right["pairs of one character"] == pytest.approx(float(torch.stack(pairs).double().mean()))
    assert right["pairs of one character"] < right["drawings in the right cluster"] < 1
    noise = [
        classes_by_hands(bank, torch.randn_like(features), seed)[1]["pairs of one character"] for seed in range(20)
    ]
    assert sum(noise) / 20 == pytest.approx(1 / CHARACTERS, abs=0.05)


def test_the_order_in_which_drawings_lie_tells_nothing() -> None:
    """Classes in another order give the same; equal features, which leave nothing but the order, give chance."""
    bank, features = planted(0.3)
    moved = torch.cat([torch.randperm(CHARACTERS) + CHARACTERS * alphabet for alphabet in range(ALPHABETS)])
    shuffled = replace(bank.subset(moved), split="train")
    rows = bank.offsets[moved][:, None] + torch.arange(DRAWERS)
    one, other = (
        classes_by_hands(b, f, seed)[0].images.view(-1, DRAWERS)
        for b, f, seed in ((bank, features, 0), (shuffled, features[rows.flatten()], 3))
    )
    assert {tuple(row) for row in one.tolist()} == {tuple(row) for row in other.tolist()}
    # of equal features any matching is as good, and none is preferred
    equal = [classes_by_hands(bank, torch.ones_like(features), seed)[1] for seed in range(20)]
    assert sum(each["pairs of one character"] for each in equal) / 20 == pytest.approx(1 / CHARACTERS, abs=0.05)
