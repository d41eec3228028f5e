"""Episodes within an attribute, and prescribed ones."""

from __future__ import annotations

import pytest
import torch

from episodes import Attribute, Episodes, EpisodeSampler, EpisodeShape, ImageBank, InputError
from episodes.samplers.by_attribute import Within, WithinSampler
from episodes.samplers.prescribed import FixedEpisodes

GROUPS = (6, 3, 5, 6)  # classes of each alphabet


def bank(per_class: int = 7) -> ImageBank:
    """Classes of four alphabets in mixed order, each of ``per_class`` pictures."""
    values = torch.cat([torch.full((n,), g) for g, n in enumerate(GROUPS)])
    values = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(0))]
    parts = [(f"c{i}", torch.zeros(per_class, 1, 8, 8, dtype=torch.uint8)) for i in range(len(values))]
    return ImageBank.from_classes(parts, attributes={"alphabet": Attribute(values, ("a", "b", "c", "d"))})


def test_all_classes_of_an_episode_are_of_one_alphabet_and_small_ones_are_left_out() -> None:
    pictures = bank()
    drawn = WithinSampler(pictures, Episodes(EpisodeShape(5, 1, 2), within=Within())).span(0, 3000)
    values = pictures.attributes["alphabet"].values[drawn.classes]
    assert (values == values[:, :1]).all()
    counts = torch.bincount(values[:, 0], minlength=4)
    assert counts[1] == 0
    assert (counts[[0, 2, 3]] - 1000).abs().max() < 130
    assert (drawn.classes.sort(-1).values.diff() > 0).all()
    assert (pictures.labels[drawn.images] == drawn.classes.unsqueeze(-1)).all()
    assert (drawn.images.sort(-1).values.diff() > 0).all()
    # every class of an alphabet is as likely as the next
    assert torch.bincount(drawn.classes[values[:, 0] == 0].flatten()).count_nonzero() == 6


def test_classes_of_unknown_value_are_in_no_such_episode() -> None:
    pictures = bank()
    values = pictures.attributes["alphabet"].values
    values[values == 2] = -1
    drawn = WithinSampler(pictures, Episodes(EpisodeShape(5, 1, 2), within=Within())).span(0, 500)
    seen = values[drawn.classes]
    assert (seen == seen[:, :1]).all()
    assert set(seen.flatten().tolist()) == {0, 3}
    values[:] = -1
    with pytest.raises(InputError, match="has 0"):
        WithinSampler(pictures, Episodes(EpisodeShape(5, 1, 2), within=Within()))


def test_an_episode_is_a_function_of_its_number() -> None:
    pictures = bank()
    sampler = WithinSampler(
        pictures, Episodes(EpisodeShape(5, 1, 2), seed=3, stream="test", rotations=True, within=Within())
    )
    whole = sampler.span(0, 20)
    backwards = sampler.draw(torch.arange(19, -1, -1))
    for name in ("classes", "images", "turns"):
        assert torch.equal(getattr(whole, name), getattr(backwards, name).flip(0))


def test_share_mixes_in_episodes_of_all_classes() -> None:
    pictures = bank()
    drawn = WithinSampler(pictures, Episodes(EpisodeShape(5, 1, 2), within=Within("alphabet", 0.25))).span(0, 2000)
    values = pictures.attributes["alphabet"].values[drawn.classes]
    narrow = (values == values[:, :1]).all(-1).float().mean()
    assert 0.2 < float(narrow) < 0.3


def test_same_hands_take_the_same_numbers_from_every_class() -> None:
    pictures = bank()
    drawn = WithinSampler(pictures, Episodes(EpisodeShape(5, 1, 2), within=Within(same_hands=True))).span(0, 50)
    numbers = drawn.images - pictures.offsets[drawn.classes].unsqueeze(-1)
    assert (numbers == numbers[:, :1]).all()
    assert (numbers[:, 0].sort(-1).values.diff() > 0).all()
    assert len(numbers[:, 0].unique(dim=0)) > 30


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="the largest in the train split of custom has 6"):
        WithinSampler(bank(), Episodes(EpisodeShape(7, 1, 2), within=Within()))
    with pytest.raises(InputError, match="the classes of custom have: alphabet"):
        WithinSampler(bank(), Episodes(EpisodeShape(5, 1, 2), within=Within("script")))
    with pytest.raises(InputError, match=r"in \[0, 1\]; received 2"):
        WithinSampler(bank(), Episodes(EpisodeShape(5, 1, 2), within=Within(share=2)))
    ragged = ImageBank.from_classes(
        [(f"c{i}", torch.zeros(4 + i, 1, 8, 8, dtype=torch.uint8)) for i in range(5)],
        attributes={"alphabet": Attribute(torch.zeros(5, dtype=torch.int64), ("a",))},
    )
    with pytest.raises(InputError, match="4 to 8"):
        WithinSampler(ragged, Episodes(EpisodeShape(3, 1, 1), within=Within(same_hands=True)))


def test_prescribed_episodes_are_given_back() -> None:
    drawn = EpisodeSampler(bank(), Episodes(EpisodeShape(3, 1, 2))).span(0, 6)
    fixed = FixedEpisodes(drawn)
    assert (len(fixed), fixed.way, fixed.shot, fixed.query) == (6, 3, 1, 2)
    assert torch.equal(fixed.span(2, 3).images, drawn.images[2:5])
    with pytest.raises(InputError, match="6 prescribed episodes"):
        fixed.span(5, 2)
