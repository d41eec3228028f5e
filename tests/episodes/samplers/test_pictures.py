from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from episodes import Episodes, EpisodeShape, ImageBank, InputError, ViewSampler, make_batch, picture_classes
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
    one, two = (
        make_batch(b, ViewSampler(b, Episodes(EpisodeShape(20, 1, 3), seed=4)).span(7, 2))
        for b in map(picture_classes, (bank, other))
    )
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.indices, two.indices)


def test_a_class_of_one_picture_gives_it_every_time(bank: ImageBank) -> None:
    drawn = ViewSampler(picture_classes(bank), Episodes(EpisodeShape(30, 1, 3))).span(0, 5)
    assert drawn.images.shape == (5, 30, 4)
    assert torch.equal(drawn.images, drawn.classes.unsqueeze(-1).expand(-1, -1, 4))
    assert all(len(set(row)) == 30 for row in drawn.classes.tolist())


def test_an_episode_depends_on_its_number_alone(bank: ImageBank) -> None:
    sampler = ViewSampler(picture_classes(bank), Episodes(EpisodeShape(5, 1, 3), seed=1))
    whole = sampler.span(0, 10)
    assert torch.equal(sampler.span(6, 2).images, whole.images[6:8])
    assert torch.equal(
        ViewSampler(picture_classes(bank), Episodes(EpisodeShape(5, 1, 3), seed=1)).draw(torch.tensor([3])).images[0],
        whole.images[3],
    )
    assert not torch.equal(
        ViewSampler(picture_classes(bank), Episodes(EpisodeShape(5, 1, 3), seed=2)).span(0, 10).images, whole.images
    )


def test_a_group_shows_its_class_by_each_member_equally_often() -> None:
    bank = picture_classes(stripes(classes=4, per_class=6))
    groups = torch.stack((torch.arange(24), torch.arange(24).roll(1), torch.arange(24)), 1)
    drawn = ViewSampler(bank, Episodes(EpisodeShape(4, 1, 7)), groups=groups).span(0, 400)
    itself = drawn.images == drawn.classes.unsqueeze(-1)
    assert (itself | (drawn.images == (drawn.classes.unsqueeze(-1) - 1) % 24)).all()
    assert abs(float(itself.float().mean()) - 2 / 3) < 0.02
    assert abs(float(itself[..., 0].float().mean()) - 2 / 3) < 0.05
    with pytest.raises(InputError, match="one class and one group for each of the 24 pictures"):
        ViewSampler(bank, Episodes(EpisodeShape(4, 1, 3)), groups=groups[:5])


def test_too_few_pictures_are_refused(bank: ImageBank) -> None:
    with pytest.raises(InputError, match="97-way"):
        ViewSampler(picture_classes(bank), Episodes(EpisodeShape(97, 1, 3)))
    with pytest.raises(InputError, match="picture_classes"):
        ViewSampler(bank, Episodes(EpisodeShape(5, 1, 3)))
