"""Scribbles: splits, determinism, the pen's way and ink by other arithmetic, hands; synthetic: what it is made of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from episodes.bank import ImageBank
from episodes.datasets import glyphs, make_dataset, scribbles
from episodes.datasets.scribbles import CHARACTERS, POINTS, SCRIPTS, Scribbles, Stroke, inked
from episodes.errors import InputError
from metagvae.zoo.trained import classes_seen


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageBank]:
    """The test split, built cold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAGVAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Scribbles().load("test")


def test_scripts_and_their_characters(bank: ImageBank) -> None:
    assert bank.num_classes == SCRIPTS["test"] * CHARACTERS == 240
    assert bank.counts.tolist() == Scribbles().sizes("test") == [20] * 240
    script = bank.attributes["script"]
    assert script.values.bincount().tolist() == [30] * 8
    for name, value in zip(bank.class_names, script.values.tolist(), strict=True):
        assert name.partition("/")[0] == script.names[value]
    assert bank.polarity == "ink"


def test_pictures_are_legible(bank: ImageBank) -> None:
    images = bank.images[:, 0].float()
    assert images.amax((1, 2)).min() > 200
    assert 12 < images.mean() < 26  # Omniglot's is 21
    edges = torch.stack((images[:, 0], images[:, -1], images[..., 0], images[..., -1]), 1)
    assert (edges.amax((1, 2)) > 128).float().mean() < 0.002  # nothing is cut off
    assert len(bank.images.flatten(1).unique(dim=0)) == len(bank)


def test_pixels_alone_are_neither_enough_nor_useless(bank: ImageBank) -> None:
    """5-way 1-shot by the nearest support picture; Omniglot's error is about 0.55."""
    flat = bank.images.flatten(1).float().view(bank.num_classes, 20, -1)
    generator = torch.Generator().manual_seed(0)
    wrong = []
    for _ in range(300):
        classes = torch.randperm(bank.num_classes, generator=generator)[:5]
        first, second = torch.randperm(20, generator=generator)[:2].tolist()
        nearest = torch.cdist(flat[classes, second], flat[classes, first]).argmin(1)
        wrong.append((nearest != torch.arange(5)).float().mean())
    assert 0.3 < torch.stack(wrong).mean() < 0.65


def test_a_drawing_depends_on_its_place_and_seed_alone(bank: ImageBank) -> None:
    again = Scribbles().character("test", 3, 7)  # alone, not after the others
    place = bank.class_names.index("test03/character08")
    assert torch.equal(again, bank.images[20 * place : 20 * place + 20])
    for other in (
        Scribbles(seed=1).character("test", 3, 7),
        Scribbles().character("train", 3, 7),
        Scribbles().character("test", 4, 7),
        Scribbles().character("test", 3, 8),
    ):
        assert (other != again).flatten(1).any(1).all()


def test_the_cache_gives_the_same_bank(bank: ImageBank, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("built again, not read from the cache")

    monkeypatch.setattr(Scribbles, "_build", fail)
    with pytest.raises(AssertionError):  # another seed is another bank
        Scribbles(seed=7).load("test")
    assert torch.equal(Scribbles().load("test").images[:], bank.images[:])


def test_drawing_i_of_a_scripts_characters_is_by_one_hand(bank: ImageBank) -> None:
    """A hand's size and pen say how much ink it leaves: so do all characters of its script, and no other script's."""
    ink = bank.images[:].float().mean((1, 2, 3)).view(SCRIPTS["test"], CHARACTERS, 20).log()
    ink = ink - ink.mean(2, keepdim=True)
    first, second = ink[:, ::2].mean(1), ink[:, 1::2].mean(1)
    between = np.corrcoef(first, second)[:8, 8:]
    assert between.diagonal().min() > 0.7
    assert abs(between[~np.eye(8, dtype=bool)].mean()) < 0.2


def test_a_part_is_an_arc_of_a_circle() -> None:
    none = np.zeros((1, 1))
    bent = Stroke(0.3, np.array([2.0]), np.array([1.5]), np.zeros(1)).path(np.zeros(1), none, none, none)[0]
    centre = bent[0] + 2 / 1.5 * np.array([-np.sin(0.3), np.cos(0.3)])
    assert np.abs(np.hypot(*(bent - centre).T) - 2 / 1.5).max() < 0.002
    assert bent[-1] - centre == pytest.approx(2 / 1.5 * np.array([np.sin(1.8), -np.cos(1.8)]), abs=0.002)
    straight = Stroke(0.3, np.array([2.0]), none[0], none[0]).path(np.zeros(1), none, none, none)[0]
    assert straight[0] == pytest.approx([0, 0])
    assert straight[-1] == pytest.approx(2 * np.array([np.cos(0.3), np.sin(0.3)]))


def test_corners_turn_the_pen_and_deviations_are_added() -> None:
    stroke = Stroke(0.0, np.array([1.0, 1.0]), np.zeros(2), np.array([0.0, np.pi / 2]))
    zero = np.zeros((2, 2))
    longer = np.array([[0.0, 0.0], [0.0, np.log(3)]])
    plain, long = stroke.path(np.array([0.0, np.pi]), longer, zero, zero)
    moves = np.diff(plain, axis=0)
    assert np.allclose(moves[:POINTS], [1 / POINTS, 0])
    assert np.allclose(moves[POINTS:], [0, 1 / POINTS])
    assert np.allclose(np.diff(long, axis=0)[POINTS:], [0, -3 / POINTS])  # turned by half a turn, three times as long


def test_ink_by_many_points_along_the_pens_way() -> None:
    """Against scipy's distances to points so close to each other that they are the line."""
    draw = np.random.default_rng(0)
    pieces, pen, size = draw.uniform(4, 24, (2, 3, 2, 2)), np.array([0.6, 1.2]), 20
    axis = (np.arange(size) + 0.5) * 28 / size
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    along = np.linspace(0, 1, 2000)[:, None]
    got = inked(torch.from_numpy(pieces).float(), torch.from_numpy(pen).float(), size)
    for ends, half, picture in zip(pieces, pen, got[:, 0], strict=True):
        points = np.concatenate([(1 - along) * a + along * b for a, b in ends])
        away = cdist(grid, points).min(1).reshape(size, size)
        expected = 255 * np.clip((half - away) / scribbles.EDGE + 0.5, 0, 1)
        assert np.abs(picture.numpy() - expected).max() <= 1


def test_errors() -> None:
    with pytest.raises(InputError, match="seed"):
        make_dataset("scribbles", seed=-1)
    with pytest.raises(InputError, match=r"8 scripts for test.*received script 8, character 0 of 'test'"):
        Scribbles().character("test", 8, 0)
    with pytest.raises(InputError, match="unknown split 'dev'"):
        make_dataset("synthetic").load("dev")


def test_synthetic_is_both_and_only_scribbles_are_turned(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("METAGVAE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(glyphs, "LETTERS", {"hebrew": ("test", "5D0-5D1"), "nko": ("test", "7CC")})
    monkeypatch.setattr(scribbles, "SCRIPTS", {"train": 1, "validation": 1, "test": 2})
    monkeypatch.setattr(scribbles, "CHARACTERS", 3)
    plain = make_dataset("synthetic").load("test")
    assert plain.num_classes == 3 + 6
    assert plain.attributes["script"].names == ("glyphs:hebrew", "glyphs:nko", "scribbles:test00", "scribbles:test01")
    assert plain.attributes["script"].values.tolist() == [0, 0, 1, 2, 2, 2, 3, 3, 3]
    source = make_dataset("scribbles").load("test")
    assert torch.equal(plain.images[-60:], source.images[-60:])
    turned = make_dataset("synthetic", rotations="classes").load("test")
    assert turned.num_classes == 3 + 4 * 6
    assert not any("rot" in name for name in turned.class_names if name.startswith("glyphs:"))
    assert {name: len(classes) for name, classes in classes_seen(turned).items()} == {"glyphs": 3, "scribbles": 6}
