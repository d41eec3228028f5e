from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from episodes import Attribute, Factors, ImageBank, InputError
from episodes.datasets.cache import cache_folder, cached_bank
from episodes.shards import Shards
from tests.support.banks import drawn_by_hands, stripes


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


def with_factors(classes: int = 3, per_class: int = 2) -> ImageBank:
    """Each image's number and its half, the latter unknown of image 1."""
    bank = stripes(classes, per_class)
    numbers = torch.arange(len(bank)).float()
    values = torch.stack((numbers, numbers / 2), -1)
    values[1, 1] = torch.nan
    return replace(bank, factors=Factors(values, ("number", "half")))


def test_factors_follow_their_images() -> None:
    bank = with_factors()
    assert bank.factors is not None
    picked = bank.factors.columns(torch.tensor([[4, 0], [2, 1]]))
    assert picked["number"].tolist() == [[4, 0], [2, 1]]
    assert picked["half"].isnan().tolist() == [[False, False], [False, True]]
    part = bank.subset(torch.tensor([2, 0]))
    assert part.factors is not None
    assert part.factors.values[:, 0].tolist() == [4, 5, 0, 1]
    turned = bank.with_rotations()
    assert turned.factors is not None
    # the upright copy of each class keeps them, the turned ones are unknown
    known = turned.factors.known[:, 0].view(3, 4, 2)
    assert known.all(-1).tolist() == [[True, False, False, False]] * 3
    assert turned.factors.values[known.flatten(), 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert turned.to("cpu").factors.values[0].equal(bank.factors.values[0])  # type: ignore[union-attr]


def test_factors_are_part_of_the_fingerprints() -> None:
    bank, plain = with_factors(), stripes(3, 2)
    assert bank.fingerprint != plain.fingerprint
    assert plain.fingerprint == replace(bank, factors=None).fingerprint
    assert bank.factors is not None
    changed = replace(bank.factors, values=bank.factors.values + 1)
    assert bank.pixels != replace(bank, factors=changed).pixels
    assert bank.fingerprint == replace(bank, factors=changed).fingerprint


def test_factors_that_do_not_fit_are_refused() -> None:
    bank = stripes(3, 2)
    for values, names in (
        (torch.zeros(5, 1), ("a",)),
        (torch.zeros(6, 2), ("a",)),
        (torch.zeros(6, 1, dtype=torch.float64), ("a",)),
        (torch.full((6, 1), torch.inf), ("a",)),
    ):
        with pytest.raises(InputError, match="must be finite float32 \\[6, 1\\]"):
            replace(bank, factors=Factors(values, names))
    for names in (("a", "a"), ("third", "b"), ("class", "b")):
        with pytest.raises(InputError, match="must have names of their own, none of class, third"):
            replace(bank, factors=Factors(torch.zeros(6, 2), names))


def test_the_cache_keeps_factors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAGVAE_CACHE", str(tmp_path))
    monkeypatch.setattr("episodes.shards.SHARD_BYTES", 1000)  # several files
    bank, key = with_factors(), {"dataset": "stripes"}
    cached_bank(key, lambda: bank)

    def never() -> ImageBank:
        raise AssertionError("decoded again")

    read = cached_bank(key, never)
    assert isinstance(read.images, Shards)
    assert read.factors is not None
    assert bank.factors is not None
    assert read.factors.names == bank.factors.names
    assert read.factors.values.equal(bank.factors.values.nan_to_num(-1)) is False
    assert torch.equal(read.factors.values.nan_to_num(-1), bank.factors.values.nan_to_num(-1))
    assert (read.fingerprint, read.pixels) == (bank.fingerprint, bank.pixels)
    # a number changed by hand: the entry is not believed
    (entry,) = tmp_path.iterdir()
    path = entry / "factors.npy"
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(AssertionError, match="decoded again"):
        cached_bank(key, never)


def test_what_is_known_of_an_image_goes_where_the_image_goes() -> None:
    bank = drawn_by_hands(classes=3, per_class=4, size=8)
    # an image is told apart by its pixels
    hand_of = {
        image.numpy().tobytes(): value
        for image, value in zip(bank.images, bank.image_attributes["hand"].values.tolist(), strict=True)
    }
    turned = bank.with_rotations()
    for made, turns in (
        (bank.subset(torch.tensor([2, 0])), [0] * 2),
        (bank.to("cpu"), [0] * 3),
        (turned, [0, 1, 2, 3] * 3),
    ):
        found = made.image_attributes["hand"]
        assert found.names == ("a", "b", "c", "d")
        upright = [
            torch.rot90(image, -turns[label], (-2, -1)).contiguous()
            for image, label in zip(made.images, made.labels.tolist(), strict=True)
        ]
        assert found.values.tolist() == [hand_of[image.numpy().tobytes()] for image in upright]
    assert bank.fingerprint == stripes(3, 4, 8).fingerprint  # a split stays the same one


def test_attributes_of_images_are_one_value_each_under_a_name_of_their_own() -> None:
    bank = stripes(3, 4, 8)
    with pytest.raises(InputError, match="has 3 values for 12 images; give one value per image"):
        replace(bank, image_attributes={"hand": Attribute(torch.zeros(3).long(), ("a",))})
    for name in ("third", "class"):
        with pytest.raises(InputError, match=f"has an attribute '{name}' of its classes"):
            replace(bank, image_attributes={name: Attribute(torch.zeros(12).long(), ("a",))})
    with pytest.raises(InputError, match="none of class, hand, third"):
        replace(drawn_by_hands(classes=3, per_class=4, size=8), factors=Factors(torch.zeros(12, 1), ("hand",)))


def test_cache_keeps_attributes_of_images_and_reads_entries_without() -> None:
    bank = drawn_by_hands(classes=3, per_class=4, size=8)
    for _ in range(2):
        kept = cached_bank({"dataset": "cache-hands"}, lambda: bank)
    assert isinstance(kept.images, torch.Tensor | Shards)
    assert kept.image_attributes["hand"].values.equal(bank.image_attributes["hand"].values)
    assert kept.image_attributes["hand"].names == bank.image_attributes["hand"].names
    for _ in range(2):
        plain = cached_bank({"dataset": "cache-plain"}, lambda: stripes(3, 4, 8))
    assert plain.image_attributes == {}
    (entry,) = cache_folder().glob("cache-plain-*")
    assert "image_attributes" not in (entry / "bank.json").read_text()  # as an older version wrote it
