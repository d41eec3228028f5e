"""The cache of decoded banks: believed only by its checksums, shared by users, clean after a kill."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from episodes import Attribute, ImageBank
from episodes.datasets import cache, cache_entry
from episodes.datasets.cache import cached_bank

KEY = {"dataset": "kept", "split": "train"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METAGVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures() -> ImageBank:
    images = torch.arange(6 * 2 * 8 * 8, dtype=torch.int64).remainder(251).to(torch.uint8).view(12, 1, 8, 8)
    parts = [(f"class {i}", images[2 * i : 2 * i + 2]) for i in range(6)]
    attributes = {"half": Attribute(torch.arange(6) // 3, ("a", "b"))}
    return ImageBank.from_classes(parts, dataset="kept", attributes=attributes, notes=("a note",))


def never() -> ImageBank:
    raise AssertionError("decoded again")


def same(one: ImageBank, other: ImageBank) -> bool:
    return (
        torch.equal(one.images[:], other.images[:])
        and one.offsets.equal(other.offsets)
        and one.attributes["half"].values.equal(other.attributes["half"].values)
        and [getattr(one, name) for name in ("class_names", "dataset", "split", "polarity", "notes")]
        == [getattr(other, name) for name in ("class_names", "dataset", "split", "polarity", "notes")]
    )


def entry(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_an_entry_is_what_sha256sum_checks(folder: Path) -> None:
    cached_bank(KEY, pictures)
    assert same(cached_bank(KEY, never), pictures())
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=entry(folder), check=True)


@pytest.mark.parametrize("name", ["bank.json", "images.npy", "SHA256SUMS"])
def test_a_flipped_bit_anywhere_is_not_served(folder: Path, name: str) -> None:
    cached_bank(KEY, pictures)
    size = (entry(folder) / name).stat().st_size
    for at in range(0, size, size // 23):
        path = entry(folder) / name
        data = bytearray(path.read_bytes())
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        built: list[int] = []

        def again(built: list[int] = built) -> ImageBank:
            built.append(1)
            return pictures()

        assert same(cached_bank(KEY, again), pictures())
        assert built == [1], (name, at)
        assert same(cached_bank(KEY, never), pictures())


def test_pixels_of_zeros_under_a_whole_header_are_not_served(folder: Path) -> None:
    """Remains, after a power cut, of a file that was renamed but not flushed."""
    cached_bank(KEY, pictures)
    path = entry(folder) / "images.npy"
    data = path.read_bytes()
    path.write_bytes(data[:128] + bytes(len(data) - 128))
    assert same(cached_bank(KEY, pictures), pictures())
    assert same(cached_bank(KEY, never), pictures())


def moved_offset(index: dict[str, Any]) -> None:
    index["offsets"][1] += 1


@pytest.mark.parametrize("fitting", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda index: index["class_names"].reverse(),
        moved_offset,
        lambda index: index.update(split="test"),
        lambda index: index.update(polarity="ink"),
        lambda index: index["attributes"]["half"]["values"].reverse(),
        lambda index: index.update(notes=[]),
    ],
)
def test_a_changed_index_is_not_served(folder: Path, change: Any, fitting: bool) -> None:
    cached_bank(KEY, pictures)
    path = entry(folder) / "bank.json"
    index = json.loads(path.read_text())
    if fitting:  # another bank's entry, whole in itself, in this one's place
        index["key"] = "another"
    change(index)
    path.write_text(json.dumps(index))
    if fitting:
        resum(entry(folder))
    assert same(cached_bank(KEY, pictures), pictures())
    assert same(cached_bank(KEY, never), pictures())


def resum(place: Path) -> None:
    names = [line.split("  ")[1] for line in (place / "SHA256SUMS").read_text().splitlines()]
    lines = [f"{cache_entry._checksum(place / name)}  {name}\n" for name in names]
    (place / "SHA256SUMS").write_text("".join(lines))


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": [0, 4, 2, 6, 8, 10, 12]},
        {"offsets": [0, -2, 4, 6, 8, 10, 12]},
        {"offsets": [1, 2, 4, 6, 8, 10, 12]},
        {"offsets": [0, 2.0, 4, 6, 8, 10, 12]},
        {"offsets": [0, 2, 4, 6, 8, 10, 2**70]},
        {"offsets": "x"},
        {"class_names": ["a"] * 6},
        {"class_names": [1, 2, 3, 4, 5, 6]},
        {"files": 2},
        {"files": 10**9},
        {"attributes": {"half": 3}},
        {"attributes": {"half": {"values": [1], "names": ["a"]}}},
    ],
)
def test_a_strange_index_with_checksums_made_to_fit(folder: Path, change: dict[str, Any]) -> None:
    cached_bank(KEY, pictures)
    path = entry(folder) / "bank.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    resum(entry(folder))
    assert same(cached_bank(KEY, pictures), pictures())
    assert same(cached_bank(KEY, never), pictures())


@pytest.mark.parametrize("kind", ["file", "pipe", "link", "dangling", "empty", "missing"])
def test_other_things_in_an_entrys_place(folder: Path, tmp_path: Path, kind: str) -> None:
    cached_bank(KEY, pictures)
    place = entry(folder)
    shutil.rmtree(place)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("x")
    if kind == "file":
        place.write_text("x")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "empty":
        place.mkdir()
    elif kind != "missing":
        place.symlink_to(tmp_path / ("other" if kind == "link" else "nothing"))
    assert same(cached_bank(KEY, pictures), pictures())
    assert same(cached_bank(KEY, never), pictures())
    assert (tmp_path / "other" / "precious").read_text() == "x"


def test_checksums_are_compared_once_per_state_of_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_bank(KEY, pictures)
    read: list[str] = []
    checksum = cache_entry._checksum

    def counted(path: Path) -> str:
        read.append(path.name)
        return checksum(path)

    monkeypatch.setattr(cache_entry, "_checksum", counted)
    cached_bank(KEY, never)
    assert read == [], "this process wrote it"
    monkeypatch.setattr(cache_entry, "_verified", set())
    cached_bank(KEY, never)
    cached_bank(KEY, never)
    assert sorted(read) == ["bank.json", "images.npy"]
    os.utime(entry(folder) / "images.npy")
    cached_bank(KEY, never)
    assert sorted(read) == ["bank.json", "images.npy", "images.npy"]


def test_all_is_flushed_before_the_rename(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def flushed(handle: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def renamed(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("names of open files are read from /proc")
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "rename", renamed)
    cached_bank(KEY, pictures)
    assert [name for name in done if not name.startswith(".tmp-")] == [
        "bank.json",
        "images.npy",
        "SHA256SUMS",
        "rename",
        "cache",
    ]


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("name", ["bank.json", "images.npy", "SHA256SUMS"])
def test_an_error_of_the_moment_leaves_the_entry(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, name: str
) -> None:
    cached_bank(KEY, pictures)
    whole = {path.name: path.read_bytes() for path in entry(folder).iterdir()}
    monkeypatch.setattr(cache_entry, "_verified", set())
    true = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if path.name == name and not path.parent.name.startswith(".tmp-") and "-user" not in path.parent.name:
            raise OSError(code, os.strerror(code))
        return true(path, **options)

    with monkeypatch.context() as failing:
        failing.setattr(Path, "stat", stat)
        assert same(cached_bank(KEY, pictures), pictures())
    (place,) = (path for path in folder.iterdir() if "-user" not in path.name)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == whole
    assert same(cached_bank(KEY, never), pictures())


DECODER = """
    import sys, torch
    from episodes.datasets.cache import cached_classes

    def decode():
        for number in range(40):
            yield f"class {number}", torch.full((3, 1, 32, 32), number, dtype=torch.uint8)
            print(number, flush=True)
            if number == 1:
                sys.stdin.read()  # until it is closed
        return {"dataset": "slow", "split": "train", "polarity": "ink", "notes": ()}

    bank = cached_classes({"dataset": "slow"}, decode)
    assert bank.images[:, 0, 0, 0].tolist() == [n for n in range(40) for _ in range(3)]
"""


def decoder() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", textwrap.dedent(DECODER)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_decoder_leaves_nothing_for_long(folder: Path, kind: int) -> None:
    first, living = decoder(), decoder()
    for process in (first, living):
        assert process.stdout is not None
        process.stdout.readline()
    assert len(list(folder.glob(".tmp-*"))) == 2
    first.send_signal(kind)
    first.communicate()
    assert len(list(folder.glob(".tmp-*"))) == 2, "it was killed"
    cached_bank({"dataset": "other"}, pictures)
    assert len(list(folder.glob(".tmp-*"))) == 1, "only what still is written stays"
    living.communicate()
    assert living.returncode == 0
    assert sorted(path.name.split("-")[0] for path in folder.iterdir()) == ["other", "slow"]


def test_what_no_lock_speaks_for_is_removed_by_age(folder: Path) -> None:
    folder.mkdir()
    for name in (".tmp-abc123", ".tmp-elsewhere~1~ab"):
        (folder / name).mkdir()
    cached_bank(KEY, pictures)
    assert len(list(folder.glob(".tmp-*"))) == 2, "another machine, or an older version, may be writing there"
    for path in folder.glob(".tmp-*"):
        os.utime(path, (0, time.time() - 2 * cache._FORGOTTEN))
    cached_bank({"dataset": "other"}, pictures)
    assert not list(folder.glob(".tmp-*"))


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o755), (0o002, 0o775), (0o077, 0o700)])
def test_permissions_follow_the_umask(folder: Path, mask: int, expected: int) -> None:
    before = os.umask(mask)
    try:
        cached_bank(KEY, pictures)
    finally:
        os.umask(before)
    place = entry(folder)
    assert place.stat().st_mode & 0o777 == expected
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {expected & 0o666}


def test_a_second_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads what the first decoded; decodes once where that is private, and leaves the first's as it is."""
    if not hasattr(os, "getuid") or os.getuid() != 0:
        pytest.skip("only root can be two users")
    with tempfile.TemporaryDirectory() as shared:  # not tmp_path, which is closed to others
        Path(shared).chmod(0o755)
        monkeypatch.setenv("METAGVAE_CACHE", str(Path(shared) / "cache"))
        _two_users(Path(shared) / "cache")


def _two_users(folder: Path) -> None:
    cached_bank(KEY, pictures)
    before = os.umask(0o077)
    try:
        cached_bank({"dataset": "private"}, pictures)
    finally:
        os.umask(before)
    folder.chmod(0o1777)
    (private,) = folder.glob("private-*")

    def as_another() -> list[int]:
        """How often each was decoded, of the shared one, the private one, and the private one again."""
        counts = []
        for key in (KEY, {"dataset": "private"}, {"dataset": "private"}):
            built: list[int] = []

            def build(built: list[int] = built) -> ImageBank:
                built.append(1)
                return pictures()

            assert same(cached_bank(key, build), pictures())
            counts.append(len(built))
        return counts

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            cache_entry._verified.clear()
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(write, json.dumps(as_another()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10_000).decode() == "[0, 1, 0]"
    assert private.is_dir()
    assert not list(folder.glob(".tmp-*"))
