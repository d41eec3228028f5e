from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from episodes import ImageBank, InputError, ViewSampler, group_classes, make_batch, picture_classes
from tests.conftest import stripes


def test_picture_classes_keep_no_label(bank: ImageBank) -> None:
    single = picture_classes(bank)
    assert single.num_classes == len(bank)
    assert single.attributes == {}
    assert torch.equal(single.images, bank.images)
    assert not set(single.class_names) & set(bank.class_names)


def test_relabelled_pictures_give_the_same_episodes(bank: ImageBank) -> None:
    """Every label replaced and every class border moved: nothing of an episode changes."""
    other = replace(bank, offsets=torch.tensor([0, 50, len(bank)]), class_names=("one", "two"), attributes={})
    one, two = (make_batch(b, ViewSampler(b, 20, 1, 3, seed=4).span(7, 2)) for b in map(picture_classes, (bank, other)))
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.indices, two.indices)


def test_a_class_of_one_picture_gives_it_every_time(bank: ImageBank) -> None:
    drawn = ViewSampler(picture_classes(bank), 30, 1, 3).span(0, 5)
    assert drawn.images.shape == (5, 30, 4)
    assert torch.equal(drawn.images, drawn.classes.unsqueeze(-1).expand(-1, -1, 4))
    assert all(len(set(row)) == 30 for row in drawn.classes.tolist())


def test_an_episode_depends_on_its_number_alone(bank: ImageBank) -> None:
    sampler = ViewSampler(picture_classes(bank), 5, 1, 3, seed=1)
    whole = sampler.span(0, 10)
    assert torch.equal(sampler.span(6, 2).images, whole.images[6:8])
    assert torch.equal(
        ViewSampler(picture_classes(bank), 5, 1, 3, seed=1).draw(torch.tensor([3])).images[0], whole.images[3]
    )
    assert not torch.equal(ViewSampler(picture_classes(bank), 5, 1, 3, seed=2).span(0, 10).images, whole.images)


def test_groups_give_their_own_pictures_and_leave_out_the_negative() -> None:
    bank = stripes(classes=4, per_class=6)
    groups = torch.arange(24) % 5 - 1
    grouped = group_classes(bank, groups)
    assert grouped.num_classes == 4
    for number in range(4):
        own = grouped.images[int(grouped.offsets[number]) : int(grouped.offsets[number + 1])]
        assert torch.equal(own, bank.images[groups == number])
    drawn = ViewSampler(grouped, 4, 1, 7).span(0, 50)
    start, end = grouped.offsets[:-1][drawn.classes], grouped.offsets[1:][drawn.classes]
    assert ((drawn.images >= start.unsqueeze(-1)) & (drawn.images < end.unsqueeze(-1))).all()
    assert len(drawn.images.unique()) == len(grouped)
    with pytest.raises(InputError, match="each of the 24 pictures"):
        group_classes(bank, groups[:5])


def test_too_few_pictures_are_refused(bank: ImageBank) -> None:
    with pytest.raises(InputError, match="97-way"):
        ViewSampler(picture_classes(bank), 97, 1, 3)
