"""Pictures of known factors: each factor moves what it should and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from episodes import InputError
from episodes.datasets import make_dataset
from episodes.datasets.factors import WarpedPictures
from episodes.datasets.sprites import SpritePictures
from tests.support.banks import stripes


def centre(images: Tensor) -> Tensor:
    """Mean (right, down) of the ink ``[B, 2]``, in pixels."""
    ink = images[:, 0]
    axis = torch.arange(ink.shape[-1]).float()
    total = ink.sum((1, 2))
    return torch.stack(((ink.sum(1) * axis).sum(-1), (ink.sum(2) * axis).sum(-1)), -1) / total[:, None]


def along(start: list[int], column: int, size: int) -> Tensor:
    values = torch.tensor(start).repeat(size, 1)
    values[:, column] = torch.arange(size)
    return values


def test_sprites_have_dsprites_grid() -> None:
    pictures = SpritePictures()
    assert [f.size for f in pictures.factors] == [3, 6, 40, 32, 32]
    images = pictures.render(pictures.draw(64, 0))
    assert images.shape == (64, 1, 64, 64)
    assert set(images.unique().tolist()) == {0.0, 1.0}
    # nothing touches the border: the whole shape is in the picture
    assert pictures.render(pictures.draw(3000, 1))[..., 0, :].sum() == 0
    assert torch.equal(pictures.draw(9, 3), pictures.draw(9, 3))


@pytest.mark.parametrize("shape", range(3))
def test_each_factor_of_a_sprite_moves_what_it_should(shape: int) -> None:
    pictures = SpritePictures()
    middle = [shape, 5, 0, 16, 16]
    right = centre(pictures.render(along(middle, 3, 32)))
    assert (right[:, 0].diff() > 0).all()
    assert right[:, 1].std() < 0.3
    up = centre(pictures.render(along(middle, 4, 32)))
    assert (up[:, 1].diff() < 0).all()
    area = pictures.render(along(middle, 1, 6)).sum((1, 2, 3))
    assert (area.diff() > 0).all()
    turned = pictures.render(along(middle, 2, 40))
    assert turned.sum((1, 2, 3)).std() < 0.03 * turned[0].sum()
    assert not torch.equal(turned[0], turned[5])


def test_a_quarter_turn_of_a_sprite_is_counter_clockwise() -> None:
    pictures = SpritePictures(65)
    values = torch.tensor([[2, 5, 0, 0, 0], [2, 5, 10, 0, 0]])
    # put both in the exact middle: the grid has no value there
    values = values.double()
    values[:, 3:] = 15.5
    upright, turned = pictures.render(values)
    assert (torch.rot90(upright, 1, (-2, -1)) - turned).abs().mean() < 0.003


def test_sprites_as_a_data_set() -> None:
    bank = make_dataset("sprites", count=300, size=32).load("train")
    assert bank.class_names == ("square", "ellipse", "heart")
    assert (len(bank), bank.image_shape) == (300, (1, 32, 32))
    other = make_dataset("sprites", count=300, size=32).load("validation")
    assert not torch.equal(bank.images[:20], other.images[:20])


def test_warped_pictures_move_by_known_amounts() -> None:
    bank = stripes(12, 2, 32)
    pictures = WarpedPictures(bank, characters=4, steps=5)
    assert [f.size for f in pictures.factors] == [4, 5, 5, 5, 5]
    still = pictures.render(torch.tensor([[c, 2, 2, 2, 2] for c in range(4)]))
    assert torch.allclose(still, pictures.pictures, atol=1e-5)
    dot = torch.zeros(4, 1, 32, 32)
    dot[:, :, 15:17, 15:17] = 1
    pictures.pictures = dot
    x = centre(pictures.render(along([0, 2, 2, 0, 2], 3, 5)))
    step = pictures.shift * 32 * 2 / 4
    assert torch.allclose(x[:, 0].diff(), torch.full((4,), step), atol=0.05)
    with pytest.raises(InputError, match="2 to 12 characters"):
        WarpedPictures(bank, characters=13)
