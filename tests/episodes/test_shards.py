"""Banks in several files: the same pictures, episodes and weights as in one."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from episodes import EpisodeLoader, Episodes, EpisodeSampler, EpisodeShape, ImageBank, InputError, shards
from episodes.datasets.cache import cache_folder, cached_classes
from episodes.datasets.cache_entry import Decoding
from episodes.datasets.folder import Folder
from episodes.samplers.pictures import picture_classes
from episodes.shards import Shards, ShardWriter, mapped
from metagvae.storage.tensors import read_tensors
from metagvae.training.episodic import train
from tests.conftest import stripes
from tests.episodes.datasets.test_folder import files, write
from tests.metagvae.training.test_training import train_config


def sharded(bank: ImageBank, folder: Path, shard_bytes: int) -> ImageBank:
    """The same bank, mapped from files of about so many bytes."""
    assert isinstance(bank.images, torch.Tensor)
    with ShardWriter(folder, shard_bytes) as writer:
        for first, last in zip(bank.offsets[:-1].tolist(), bank.offsets[1:].tolist(), strict=True):
            writer.add(bank.images[first:last])
    return replace(bank, images=mapped(folder, writer.files))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[ImageBank, ImageBank]:
    """A bank of 12 classes in one tensor, and in shards of 5, 5 and 2 of them."""
    bank = stripes(noise=0.6)
    parts = sharded(bank, tmp_path, 8 * 256 * 4 + 1)
    assert isinstance(parts.images, Shards)
    assert [len(part) for part in parts.images.parts] == [40, 40, 16]
    return bank, parts


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("turns", [False, True])
def test_episodes_are_bit_identical(pair: tuple[ImageBank, ImageBank], threads: int, turns: bool) -> None:
    loaders = [
        EpisodeLoader(
            bank, EpisodeSampler(bank, Episodes(EpisodeShape(5, 2, 3), seed=4, rotations=turns)), 3, threads=threads
        )
        for bank in pair
    ]
    for step in (*range(30), 10**9):
        one, other = (loader[step] for loader in loaders)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.indices, other.indices)
    for loader in loaders:
        loader.close()


def test_whatever_is_asked_of_the_pictures(pair: tuple[ImageBank, ImageBank]) -> None:
    one, other = pair
    assert (other.fingerprint, other.pixels) == (one.fingerprint, one.pixels)
    assert (len(other), other.image_shape, other.images.nbytes) == (96, (1, 16, 16), one.images.nbytes)
    for part in (slice(None), slice(38, 43), slice(90, 200), slice(5, 70, 3), slice(0, 0)):
        assert torch.equal(other.images[part], one.images[part])
    rows = torch.tensor([[95, 0, 40], [39, 0, 79]])
    assert torch.equal(other.gather(rows), one.gather(rows))
    assert torch.equal(other.images[torch.arange(96) % 7 == 0], one.images[torch.arange(96) % 7 == 0])
    classes = torch.tensor([11, 0, 4])
    assert torch.equal(other.subset(classes).images, one.subset(classes).images)
    assert torch.equal(other.with_rotations().images, one.with_rotations().images)
    assert torch.equal(picture_classes(other).gather(rows), picture_classes(one).gather(rows))
    assert other.to("cpu").images is other.images
    for wrong in (torch.tensor([96]), torch.tensor([-1])):
        with pytest.raises(IndexError, match=r"\[0, 96\)"):
            other.gather(wrong)


def test_training_ends_in_the_same_weights(pair: tuple[ImageBank, ImageBank], tmp_path: Path) -> None:
    for name, bank in zip(("one", "other"), pair, strict=True):
        train(train_config(tmp_path / name, 4), bank, bank)
    one, other = (read_tensors(tmp_path / name / "learner.safetensors") for name in ("one", "other"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_folder_is_decoded_into_files_of_whole_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Folder(root=write(tmp_path / "pictures", files()), size=16)
    monkeypatch.setenv("METAGVAE_CACHE", str(tmp_path / "one"))
    one = dataset.load("train")
    assert isinstance(one.images, torch.Tensor)
    monkeypatch.setenv("METAGVAE_CACHE", str(tmp_path / "several"))
    monkeypatch.setattr(shards, "SHARD_BYTES", 2 * 6 * 3 * 16 * 16)
    for _ in range(2):  # decoded, then read
        several = dataset.load("train")
        assert isinstance(several.images, Shards)
        assert {len(part) for part in several.images.parts} <= {6, 12}
        assert len(several.images.parts) > 2
        assert torch.equal(several.images[:], one.images)
        assert several.fingerprint == one.fingerprint
    (entry,) = (tmp_path / "several").iterdir()
    (entry / "images-1.npy").write_bytes(b"broken")
    assert torch.equal(dataset.load("train").images[:], one.images)


def decoding(classes: int = 20) -> Decoding:
    """Classes of one picture each, of which no more than one is held at a time."""
    given: list[weakref.ref[torch.Tensor]] = []
    for number in range(classes):
        images = torch.full((1, 1, 8, 8), number, dtype=torch.uint8)
        given.append(weakref.ref(images))
        assert sum(one() is not None for one in given) <= 2  # this one, and the last in its caller's hands
        yield f"class{number}", images
        del images
    return {"dataset": "counted", "split": "train", "polarity": "ink", "notes": ()}


def test_one_class_is_held_while_decoding() -> None:
    bank = cached_classes({"dataset": "held"}, decoding)
    assert bank.images[:, 0, 0, 0].tolist() == list(range(20))
    assert bank.polarity == "ink"


def test_without_room_the_bank_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: ShardWriter, images: torch.Tensor) -> None:
        raise OSError(28, "No space left on device")

    whole = stripes()
    monkeypatch.setattr(ShardWriter, "add", full)

    def decode() -> Decoding:
        for number, name in enumerate(whole.class_names):
            yield name, whole.images[8 * number : 8 * number + 8]
        return {"dataset": "stripes", "split": "train", "polarity": "light", "notes": ()}

    bank = cached_classes({"dataset": "no-room"}, decode)
    assert torch.equal(bank.images, whole.images)
    assert not [path for path in cache_folder().iterdir() if path.name.startswith((".tmp-", "no-room"))]


def test_what_cannot_be_decoded_leaves_nothing() -> None:
    def decode() -> Decoding:
        yield "class", torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
        raise InputError("the second class is broken")

    with pytest.raises(InputError, match="second class"):
        cached_classes({"dataset": "broken"}, decode)
    assert not [path for path in cache_folder().iterdir() if path.name.startswith((".tmp-", "broken"))]
