"""MNIST: order, labels, size, and files that are not it."""

from __future__ import annotations

import errno
import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from episodes.datasets import make_dataset
from episodes.errors import InputError


def write(folder: Path, **changes: np.ndarray) -> str:
    """A small file of MNIST's form: picture i is filled with i."""
    arrays = {}
    for split, count in (("train", 40), ("test", 20)):
        arrays[f"{split}_images"] = np.arange(count, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
        arrays[f"{split}_labels"] = (np.arange(count) % 10).astype(np.uint8)
    arrays.update(changes)
    np.savez(folder / "mnist.npz", **{name: array for name, array in arrays.items() if array is not None})
    return str(folder)


def test_pictures_lie_by_class_in_the_order_of_the_file(tmp_path: Path) -> None:
    bank = make_dataset("mnist", root=write(tmp_path)).load("train")
    assert bank.images.shape == (40, 1, 28, 28)
    assert bank.counts.tolist() == [4] * 10
    assert bank.images[:, 0, 0, 0].tolist() == [c + 10 * k for c in range(10) for k in range(4)]
    assert bank.polarity == "ink"


def test_other_sizes_keep_the_grey_level(tmp_path: Path) -> None:
    bank = make_dataset("mnist", root=write(tmp_path), size=16).load("test")
    assert bank.image_shape == (1, 16, 16)
    assert (bank.images.float().mean((1, 2, 3)) == bank.images[:, 0, 0, 0]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"train_images": None},
        {"train_images": np.zeros((40, 28, 28), np.float32)},
        {"train_images": np.zeros((40, 28), np.uint8)},
        {"train_labels": np.zeros(39, np.uint8)},
        {"train_labels": np.full(40, 10, np.uint8)},
        {"train_labels": np.zeros(40, np.float32)},
        {"train_labels": np.array([None] * 40)},
    ],
)
def test_files_that_are_not_mnist_are_named(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match=r"mnist\.npz"):
        make_dataset("mnist", root=write(tmp_path, **changes)).load("train")


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "mnist.npz").write_bytes(b"PK\x03\x04 not")
    with pytest.raises(InputError, match=r"mnist\.npz"):
        make_dataset("mnist", root=str(tmp_path)).load("train")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_unpack_without_limit_are_not_unpacked(tmp_path: Path, method: int) -> None:
    """Two kilobytes of bzip2 hold two gigabytes of zeros; these hold forty megabytes."""
    write(tmp_path)
    with np.load(tmp_path / "mnist.npz") as arrays:
        small = dict(arrays)
    big = np.zeros((50_000, 28, 28), np.uint8)
    with zipfile.ZipFile(tmp_path / "mnist.npz", "w", method) as archive:
        for name, array in {**small, "train_images": big}.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    tracemalloc.start()
    with pytest.raises(InputError, match=r"packed by method \d+; only stored and deflated"):
        make_dataset("mnist", root=str(tmp_path)).load("train")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize("shape", ["(10**12, 28, 28)", "(41, 28, 28)", "(-40, 28, 28)", "(40, 28, 28, 1)"])
def test_headers_that_claim_another_shape(tmp_path: Path, shape: str) -> None:
    write(tmp_path)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((40, 28, 28), np.uint8))
    header = buffer.getvalue().replace(b"(40, 28, 28)" + b" " * (len(shape) - 12), shape.encode(), 1)
    with zipfile.ZipFile(tmp_path / "mnist.npz", "w") as archive:
        archive.writestr("train_images.npy", header)
    with pytest.raises(InputError, match=r"mnist\.npz"):
        make_dataset("mnist", root=str(tmp_path)).load("train")


def test_it_is_fetched_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Upstream:
        data, targets = torch.zeros(40, 28, 28, dtype=torch.uint8), torch.arange(40) % 10

        def __init__(self, *_: object, **__: object) -> None: ...

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torchvision.datasets.MNIST", Upstream)
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(InputError, match="no room"):
            make_dataset("mnist").fetch(tmp_path)
    assert not list(tmp_path.iterdir())
    make_dataset("mnist").fetch(tmp_path)
    assert make_dataset("mnist", root=str(tmp_path)).load("train").counts.tolist() == [4] * 10


def test_there_is_no_validation_split_unless_training_images_are_held_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="held_out"):
        make_dataset("mnist", root=write(tmp_path)).load("validation")
    # a file sorted by digit, as some are
    write(tmp_path, train_labels=np.arange(40, dtype=np.uint8) // 4)
    kept = make_dataset("mnist", root=str(tmp_path), held_out=10)
    banks = {split: kept.load(split) for split in ("train", "validation", "test")}
    seen = {split: set(bank.images[:, 0, 0, 0].tolist()) for split, bank in banks.items()}
    assert seen["validation"] == set(range(0, 40, 4))
    assert seen["train"] == set(range(40)) - seen["validation"]
    assert seen["test"] == set(range(20))
    assert banks["train"].counts.tolist() == [3] * 10
    assert banks["validation"].counts.tolist() == [1] * 10


@pytest.mark.parametrize("held_out", [-1, 40])
def test_all_or_less_than_none_cannot_be_held_out(tmp_path: Path, held_out: int) -> None:
    with pytest.raises(InputError, match="held_out of 'mnist' must be at least 0"):
        make_dataset("mnist", root=write(tmp_path), held_out=held_out).load("train")


def test_the_real_one(real_data: Path) -> None:
    if not (real_data / "mnist").is_dir():
        pytest.skip("no mnist in METAGVAE_DATA")
    bank = make_dataset("mnist", root=str(real_data / "mnist")).load("test")
    assert bank.counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert torch.equal(bank.labels.bincount(), bank.counts)
