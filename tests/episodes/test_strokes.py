"""Pen strokes: read, refused, drawn."""

from __future__ import annotations

import math

import pytest
import torch

from episodes import InputError
from episodes.strokes import direction_maps, read_strokes

TEXT = b"START\n10.0,-50.0,0\n90.0,-50.0,40\nBREAK\n52.5,-20.0,90\n52.5,-80.0,130\n52.5,-80.0,131\nBREAK\n"


def test_strokes_are_read() -> None:
    strokes = read_strokes(TEXT, "a.txt")
    assert [len(stroke) for stroke in strokes] == [2, 3]
    assert strokes[0].tolist() == [[10.0, -50.0], [90.0, -50.0]]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "its first line should be START"),
        (b"x,y,t\n1,2,3", "its first line should be START"),
        (b"START\n1,2\n", r"a.txt, line 2: .* received '1,2'"),
        (b"START\n1,2,3\nnan,1,2\n", r"line 3: .* received 'nan,1,2'"),
        (b"START\n1e9,0,0\n", "line 2"),
        (b"START\n" + b"1,2,3\n" * 100_001, "at most 100,000"),
        (bytes(range(256)), "its first line should be START"),
    ],
)
def test_what_is_no_stroke_is_one_sentence(data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_strokes(data, "a.txt")


def test_maps_say_where_and_which_way() -> None:
    maps = direction_maps(read_strokes(TEXT, "a.txt"), size=21, bins=8)
    assert maps.shape == (8, 21, 21)
    across, down = maps[0], maps[6]  # to the right; straight down
    assert across[9:11, 1:19].sum() > 0.95 * across.sum() > 5  # y of -50 of 105 is row 10 of 21, half-way to row 9
    assert down[4:16, 10].sum() > 0.9 * down.sum() > 5
    assert float(maps[[1, 2, 3, 4, 5, 7]].sum()) == 0
    assert float(maps.max()) <= 1


@pytest.mark.parametrize("bins", [4, 8])
def test_a_turned_stroke_turns_its_bin(bins: int) -> None:
    for place in range(2 * bins):
        way = math.pi * place / bins
        middle = torch.tensor([50.0, -50.0])
        stroke = middle + torch.tensor([[-30.0], [30.0]]) * torch.tensor([[math.cos(way), math.sin(way)]])
        sums = direction_maps([stroke], 21, bins).sum((1, 2))
        expected = torch.zeros(bins)
        expected[place // 2] += 1 - 0.5 * (place % 2)
        expected[(place // 2 + 1) % bins] += 0.5 * (place % 2)
        assert torch.allclose(sums / sums.sum(), expected, atol=0.05)


def test_ink_does_not_depend_on_how_often_the_pen_was_sampled() -> None:
    coarse = torch.tensor([[10.0, -50.0], [90.0, -20.0]])
    fine = coarse[0] + torch.linspace(0, 1, 200)[:, None] * (coarse[1] - coarse[0])
    assert torch.allclose(direction_maps([coarse], 28), direction_maps([fine], 28), atol=0.15)
    assert direction_maps([torch.tensor([[500.0, 500.0], [900.0, 500.0]])], 28).sum() == 0  # off the paper
    assert direction_maps([], 28).shape == (8, 28, 28)
