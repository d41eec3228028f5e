"""Omniglot: the published splits, ink polarity, sizes, rotations, zip and folder."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from episodes import ImageBank, InputError
from episodes.datasets import make_dataset
from episodes.datasets.cache import cached_bank
from episodes.datasets.omniglot import PARTS, Omniglot, vinyals_split
from episodes.untrusted.archives import Source
from tests.support.omniglot_files import members, write

COUNTS = {"train": 1028, "validation": 172, "test": 423}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write(tmp_path_factory.mktemp("omniglot") / "small", members(), zipped=True))


def test_published_split_is_whole() -> None:
    splits = {split: vinyals_split(split) for split in COUNTS}
    assert {split: len(pairs) for split, pairs in splits.items()} == COUNTS
    assert len(set.union(*splits.values())) == 1623


def test_lake_split_and_its_attributes(small: str) -> None:
    banks = {split: Omniglot(root=small, splits="lake").load(split) for split in COUNTS}
    assert [bank.num_classes for bank in banks.values()] == [4, 10, 4]
    assert banks["train"].attributes["alphabet"].names == ("A", "B")
    assert banks["test"].class_names == tuple(f"{a}/character{n:02d}" for a in "YZ" for n in (1, 2))
    assert banks["train"].counts.tolist() == [3] * 4


@pytest.mark.parametrize("where", ["", "omniglot-py"])
def test_folder_and_zip_read_alike(tmp_path: Path, small: str, where: str) -> None:
    write(tmp_path / where / "inner" if not where else tmp_path / where, members(), zipped=False)
    root = tmp_path if where else tmp_path / "inner"
    for split in COUNTS:
        folder = Omniglot(root=str(root), splits="lake").load(split)
        zipped = Omniglot(root=small, splits="lake").load(split)
        assert folder.images.equal(zipped.images)
        assert folder.class_names == zipped.class_names


@pytest.mark.parametrize("size", [None, 20, 105])
def test_ink_is_bright_and_grey_and_sized(small: str, size: int | None) -> None:
    bank = make_dataset("omniglot", root=small, splits="lake", size=size).load("validation")
    assert bank.image_shape == (1, size or 28, size or 28)
    assert bank.polarity == "ink"
    assert bank.images.float().mean() < 64
    assert bank.images.max() > 200
    levels = len(bank.images.unique())
    # as 1-bit pictures they would be resized without a filter, to two levels
    assert levels == 2 if size == 105 else levels > 10


def test_rotations_as_classes(small: str) -> None:
    plain = Omniglot(root=small, splits="lake").load("train")
    turned = Omniglot(root=small, splits="lake", rotations="classes").load("train")
    assert turned.num_classes == 4 * plain.num_classes
    assert turned.class_names[:4] == tuple(f"A/character01/rot{k}" for k in ("000", "090", "180", "270"))
    assert turned.images[3:6].equal(torch.rot90(plain.images[:3], 1, (-2, -1)))
    assert turned.attributes["alphabet"].values[:8].tolist() == [0] * 8
    assert Omniglot(root=small, splits="lake", rotations="episode").load("train").num_classes == 4


def test_the_drawer_of_each_image_is_known_and_numbered_within_its_alphabet(small: str) -> None:
    bank = Omniglot(root=small, splits="lake").load("train")
    assert bank.image_attributes["drawer"].values.tolist() == [0, 1, 2] * 4
    assert bank.image_attributes["drawer"].names == ("1", "2", "3")
    turned = Omniglot(root=small, splits="lake", rotations="classes").load("train")
    assert turned.image_attributes["drawer"].values.tolist() == [0, 1, 2] * 16
    assert "drawer" not in bank.attributes  # what samples or clusters classes sees the alphabet alone
    assert bank.fingerprint == replace(bank, image_attributes={}).fingerprint


def test_an_entry_of_a_version_that_knew_no_drawers_is_not_taken(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def older(key: dict[str, Any], build: Callable[[], ImageBank]) -> ImageBank:
        known = {name: value for name, value in key.items() if name != "image_attributes"}
        return cached_bank(known, lambda: replace(build(), image_attributes={}))

    data = Omniglot(root=small, splits="lake", size=21)
    with monkeypatch.context() as patch:
        patch.setattr("episodes.datasets.omniglot.cached_bank", older)
        assert not data.load("train").image_attributes
    assert data.load("train").image_attributes


def test_backgrounds_of_lakes_task(small: str) -> None:
    standard = Omniglot(root=small, splits="lake-standard")
    assert standard.load("train").attributes["alphabet"].names == tuple("ABCDEFG")
    assert standard.load("test").attributes["alphabet"].names == tuple("YZ")
    with pytest.raises(InputError, match=r"set validation\.every 0"):
        standard.load("validation")
    with pytest.raises(InputError, match="missing: Balinese, Early_Aramaic, Greek, Korean, Latin"):
        Omniglot(root=small, splits="lake-minimal").load("train")


def test_real_minimal_background(real_data: Path) -> None:
    found = Omniglot(root=str(real_data / "omniglot"), splits="lake-minimal")
    train, validation = found.load("train"), found.load("validation")
    assert (train.num_classes, validation.num_classes) == (136, 964 - 136)


def test_incomplete_sets_are_refused(tmp_path: Path, small: str) -> None:
    with pytest.raises(InputError, match=r"of 1028 characters of the train split are missing"):
        Omniglot(root=small).load("train")
    found = members()
    del found[PARTS[1]]
    with pytest.raises(InputError, match=r"neither images_evaluation\.zip nor"):
        Omniglot(root=str(write(tmp_path / "half", found, zipped=True)), splits="lake").load("train")
    strange = members()
    strange[PARTS[0]] = {"notes/read/me.txt": b"no drawings"}
    with pytest.raises(InputError, match=r"hold no image of the train split \(lake-standard\)"):
        Omniglot(root=str(write(tmp_path / "strange", strange, zipped=True)), splits="lake-standard").load("train")
    with pytest.raises(InputError, match="looked in"):
        Omniglot(root=str(tmp_path / "nowhere")).load("train")
    with pytest.raises(InputError, match="vinyals, lake, lake-standard, lake-minimal"):
        Omniglot(splits="mine")
    with pytest.raises(InputError, match="unknown split"):
        Omniglot(root=small).load("val")


def test_damaged_drawing_is_named(tmp_path: Path) -> None:
    found = members()
    name = sorted(found[PARTS[0]])[0]
    found[PARTS[0]][name] = found[PARTS[0]][name][:60]
    root = write(tmp_path / "broken", found, zipped=True)
    with pytest.raises(InputError, match=rf"{name} in .*images_background.zip is not a readable picture"):
        Omniglot(root=str(root), splits="lake").load("train")


def test_table_equals_the_published_lists(real_data: Path) -> None:
    for split, file in (("train", "train"), ("validation", "val"), ("test", "test")):
        lines = (real_data / "omniglot" / "splits_vinyals" / f"{file}.txt").read_text().split()
        parts = [line.split("/") for line in lines]
        assert {(alphabet, character) for alphabet, character, _ in parts} == vinyals_split(split)
        assert len(lines) == 4 * COUNTS[split]


@pytest.mark.parametrize("split", COUNTS)
def test_real_data(real_data: Path, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Omniglot(root=str(real_data / "omniglot"))
    bank = dataset.load(split)
    assert bank.num_classes == COUNTS[split]
    assert bank.counts.unique().tolist() == [20]
    assert 5 < bank.images.float().mean() < 64
    monkeypatch.setattr(Source, "read", lambda *_: pytest.fail("a cached split was decoded again"))
    assert dataset.load(split).images.equal(bank.images)
    if split == "validation":
        turned = Omniglot(root=str(real_data / "omniglot"), rotations="classes").load(split)
        assert turned.num_classes == 4 * 172


def test_real_folder_and_zip_read_alike(real_data: Path, tmp_path: Path) -> None:
    """The first drawings of one character of some alphabets, as a zip and extracted."""
    found: dict[str, dict[str, bytes]] = {}
    for part, alphabets in zip(PARTS, (7, 2), strict=True):
        with zipfile.ZipFile(real_data / "omniglot" / f"{part}.zip") as archive:
            names = [n for n in sorted(archive.namelist()) if n.endswith(".png") and "/character01/" in n]
            chosen = sorted({name.split("/")[1] for name in names})[:alphabets]
            found[part] = {n: archive.read(n) for n in names if n.split("/")[1] in chosen}
    roots = [write(tmp_path / kind, found, zipped=kind == "zip") for kind in ("zip", "folder")]
    for split in COUNTS:
        banks = [Omniglot(root=str(root), splits="lake").load(split) for root in roots]
        assert banks[0].images.equal(banks[1].images)
        assert banks[0].fingerprint == banks[1].fingerprint
        assert len(banks[0]) == 20 * banks[0].num_classes
        assert len(banks[0].images.unique()) > 10
