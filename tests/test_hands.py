"""The hand in features: planted offsets of drawers are found, taken off and whitened, as they were planted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from episodes import Attribute, Episodes, EpisodeShape, ImageBank
from experiments.hands import Drawn, Measure, apart, halved, readable, share, without_hands
from metagvae.compute.device import Device
from metagvae.encoders.whitening import fit_whitening
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import PrototypicalNetwork

ALPHABETS, CHARACTERS, DRAWERS, LENGTH = 3, 12, 6, 8


def planted(offsets: float, noise: float = 1.0, seed: int = 0) -> tuple[Drawn, Tensor]:
    """Features of a class, of its alphabet's drawer in its quarter turn, and noise; and the offsets alone."""
    torch.manual_seed(seed)
    shape = (ALPHABETS, CHARACTERS, DRAWERS)
    images = torch.zeros(ALPHABETS * CHARACTERS, DRAWERS, 1, 4, 4, dtype=torch.uint8)
    bank = ImageBank.from_classes(
        [(f"class {number}", x) for number, x in enumerate(images)],
        attributes={"alphabet": Attribute(torch.arange(len(images)) // CHARACTERS, ("a", "b", "c"))},
    )
    drawer = Attribute(torch.arange(DRAWERS).repeat(len(images)), tuple("123456"))
    bank = replace(bank, image_attributes={"drawer": drawer}).with_rotations()
    moved = offsets * torch.randn(ALPHABETS, 1, 4, DRAWERS, LENGTH).expand(-1, CHARACTERS, -1, -1, -1)
    centres = 3 * torch.randn(ALPHABETS, CHARACTERS, 4, 1, LENGTH)
    found = centres + moved + noise * torch.randn(*shape[:2], 4, DRAWERS, LENGTH)
    return Drawn(bank, found.flatten(0, 3)), moved.flatten(0, 3)


@pytest.mark.parametrize(("offsets", "expected"), [(0.0, 0.0), (0.5, 0.2), (1.0, 0.5)])
def test_the_share_of_the_drawer_is_the_planted_one(offsets: float, expected: float) -> None:
    found = torch.tensor([share(planted(offsets, seed=seed)[0]) for seed in range(8)])
    assert abs(float(found.mean()) - expected) < 3 * float(found.std()) / 8**0.5 + 0.005


def test_a_drawer_is_read_where_there_is_one_and_by_chance_where_there_is_none() -> None:
    assert readable(planted(15.0)[0]) > 0.9
    chance = [readable(planted(0.0, seed=seed)[0]) for seed in range(4)]
    assert sum(chance) / 4 == pytest.approx(1 / DRAWERS, abs=0.04)


def test_the_offset_is_that_of_the_other_characters_and_comes_off() -> None:
    drawn, moved = planted(2.0, noise=0.1)
    left, truth = without_hands(drawn), drawn.features - moved
    centred = (left - truth).view(-1, DRAWERS, LENGTH)  # up to one vector a class
    assert float((centred - centred.mean(1, keepdim=True)).abs().max()) < 0.25
    changed = replace(drawn, features=drawn.features.clone())
    changed.features[0] += 1
    difference = without_hands(changed) - left
    torch.testing.assert_close(difference[0], torch.ones(LENGTH))  # an image takes no part in its own offset
    assert difference[DRAWERS:].abs().max() > 1 / (2 * CHARACTERS)  # in those of others it does


def test_whitening_by_drawers_shortens_the_direction_in_which_hands_differ_and_no_other() -> None:
    drawn, _ = planted(0.0)
    torch.manual_seed(1)
    hands = torch.zeros(ALPHABETS, 1, 4, DRAWERS, LENGTH)
    hands[..., 0] = 4 * torch.randn(ALPHABETS, 1, 4, DRAWERS)
    features = drawn.features + hands.expand(-1, CHARACTERS, -1, -1, -1).flatten(0, 3)
    means = torch.cat([each.mean(0) for _, each in replace(drawn, features=features).groups()])
    alike = torch.arange(len(means)) // DRAWERS
    shares = (
        fit_whitening(means, alike, LENGTH - 1, 0.1).float()(torch.eye(LENGTH))
        - fit_whitening(means, alike, LENGTH - 1, 0.1).float()(torch.zeros(1, LENGTH))
    ).norm(dim=1)
    assert float(shares[0]) < 0.3 * float(shares[1:].min())
    # the planted covariance, shrunk as the whitening says, gives the same shares up to one factor of all
    values = torch.full((LENGTH,), 1 / CHARACTERS)
    values[0] += 16
    values = 0.9 * values + 0.1 * values.mean()
    assert float(shares[0] / shares[1:].mean()) == pytest.approx(float((values[1] / values[0]).sqrt()), rel=0.15)


def test_two_references_count_alike_whatever_their_number_and_scale() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(400, LENGTH), 9 * torch.randn(60, LENGTH)
    alike = torch.arange(400) // 4, torch.arange(60) // 6
    rows = [apart(one, alike[0]), apart(other, alike[1])]
    assert all(float(each.square().sum()) == pytest.approx(1.0, rel=1e-4) for each in rows)
    assert float(rows[1].view(10, 6, LENGTH).mean(1).abs().max()) < 1e-6
    torch.testing.assert_close(apart(3 * one + 1, alike[0]), rows[0], atol=1e-5, rtol=1e-4)


def test_errors_on_held_features_are_those_that_every_other_evaluation_gives() -> None:
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (8, 20, 1, 4, 4), dtype=torch.uint8)
    bank = ImageBank.from_classes([(f"class {i}", x) for i, x in enumerate(pictures)], dataset="noise", split="test")
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        drawn = Drawn.of(encoder, bank)
        (mine,) = Measure(bank, 60).of("mine", drawn.features, [(5, 1)])
    drawing = Episodes(EpisodeShape(5, 1), stream="test")
    theirs = Evaluator(bank, drawing, 60, Device.choose("cpu")).errors(
        PrototypicalNetwork(encoder, normalise=0.5), [(5, 1)]
    )
    assert mine.per_episode.tolist() == theirs[0].tolist()
    assert 0.3 < mine.error < 1
    torch.testing.assert_close(halved(torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 4.0]]) / 5**0.5)
