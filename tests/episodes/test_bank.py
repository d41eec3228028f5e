from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from episodes import ImageBank, InputError
from episodes.datasets.cache import cache_folder, cached_bank
from tests.support.banks import stripes


def test_rotations_are_classes_beside_each_other() -> None:
    bank = stripes(3, 2)
    turned = bank.with_rotations()
    assert turned.num_classes == 12
    assert turned.class_names[:4] == ("class00/rot000", "class00/rot090", "class00/rot180", "class00/rot270")
    for k in range(4):
        start = int(turned.offsets[4 + k])
        assert torch.equal(turned.images[start], torch.rot90(bank.images[2], k, (-2, -1)))
    assert turned.attributes["third"].values.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert turned.attributes["rotation"].values.tolist() == [0, 1, 2, 3] * 3


def test_subset_keeps_pictures_and_attributes() -> None:
    bank = stripes(5, 3)
    part = bank.subset(torch.tensor([4, 1]), "test")
    assert part.class_names == ("class04", "class01")
    assert torch.equal(part.images[:3], bank.images[12:15])
    assert part.attributes["third"].values.tolist() == [1, 1]
    assert part.split == "test"


def test_gather_takes_any_shape() -> None:
    bank = stripes(2, 3)
    numbers = torch.tensor([[0, 5], [2, 2]])
    assert torch.equal(bank.gather(numbers)[1, 0], bank.images[2])


def test_fingerprint_follows_classes_and_shape() -> None:
    assert stripes(4).fingerprint == stripes(4, seed=1).fingerprint
    assert stripes(4).fingerprint != stripes(5).fingerprint
    assert stripes(4).fingerprint != stripes(4, size=20).fingerprint


def test_pixels_follow_every_number_and_are_sampled_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, changed = stripes(4), stripes(4)
    assert bank.pixels == changed.pixels == bank.to("cpu").pixels
    changed.images[17, 0, 3, 5] ^= 1
    assert stripes(4).pixels == bank.pixels != replace(changed).pixels
    monkeypatch.setattr("episodes.bank.HASHED_BYTES", bank.images.numel() // 4)
    sampled, shifted = replace(bank), stripes(4)
    shifted.images[16] ^= 1
    assert replace(changed).pixels == sampled.pixels != shifted.pixels


def test_wrong_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="uint8"):
        ImageBank(torch.zeros(2, 1, 8, 8), torch.tensor([0, 2]), ("a",))
    with pytest.raises(InputError, match="offsets"):
        ImageBank(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 3]), ("a",))


def test_cache_returns_the_same_bank_and_mends_itself() -> None:
    built: list[int] = []

    def build() -> ImageBank:
        built.append(1)
        return stripes(3, 2)

    key = {"dataset": "cache-test"}
    first, second = cached_bank(key, build), cached_bank(key, build)
    assert len(built) == 1
    assert torch.equal(first.images, second.images)
    assert first.fingerprint == second.fingerprint
    assert second.attributes["third"].names == ("a", "b", "c")
    (entry,) = cache_folder().glob("cache-test-*")
    (entry / "images.npy").write_bytes(b"broken")
    assert torch.equal(cached_bank(key, build).images, first.images)
    assert len(built) == 2
    assert cached_bank({"dataset": "cache-test", "size": 3}, build) is not None
    assert len(built) == 3
