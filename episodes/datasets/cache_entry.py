"""One decoded bank as a folder: its pictures, its names, and the checksums by which it is believed.

``SHA256SUMS`` is what ``sha256sum -c`` reads. Checksums are compared before anything else in the folder is looked
at, once per process and state of a file: a flipped bit, zeros after a power cut, or a hand that moved a number make
the entry damaged, and it is decoded again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from episodes import shards
from episodes.bank import Attribute, Factors, ImageBank
from episodes.errors import InputError

INDEX, SUMS, FACTORS = "bank.json", "SHA256SUMS", "factors.npy"
MAX_INDEX_BYTES = 32 * 2**20

# gives the name and the pictures, uint8 [n, C, H, W], of a class at a time, and returns the bank's other fields
Decoding = Generator[tuple[str, Tensor], None, dict[str, Any]]

_verified: set[tuple[int | str, ...]] = set()  # stamps and checksums of files that this process has read through


class Damaged(Exception):
    """The entry is not what was written; an error of the moment while reading it is an OSError instead."""


def drain(decoding: Decoding, take: Callable[[str, Tensor], None]) -> dict[str, Any]:
    """Hands on every class; what the generator returned."""
    while True:
        try:
            name, images = next(decoding)
        except StopIteration as end:
            return dict(end.value)
        take(name, images)


def write_entry(decoding: Decoding, folder: Path, key: str) -> None:
    """Decodes into an empty folder, one class in memory at a time, and flushes all of it to the disk.

    Args:
        key: everything the bank depends on; kept, so that an entry in another's place is not believed.
    """
    names: list[str] = []
    counts = [0]

    def take(name: str, images: Tensor) -> None:
        writer.add(images)
        names.append(name)
        counts.append(len(images))

    with shards.ShardWriter(folder, shards.SHARD_BYTES) as writer:
        fields = drain(decoding, take)
    factors = fields.pop("factors", None)
    # of images only where there are any: the entry of a bank without is what an older version wrote
    listed = {name: _listed(fields.pop(name, {})) for name in ("attributes", "image_attributes")}
    index = {
        **fields,
        "key": key,
        "offsets": torch.tensor(counts).cumsum(0).tolist(),
        "class_names": names,
        "attributes": listed["attributes"],
        **({"image_attributes": listed["image_attributes"]} if listed["image_attributes"] else {}),
        "files": writer.files,
        **({} if factors is None else {"factors": factors.names}),
    }
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    files = [INDEX, *(shards.shard_path(folder, number).name for number in range(writer.files))]
    if factors is not None:
        np.save(folder / FACTORS, factors.values.numpy(), allow_pickle=False)
        files.append(FACTORS)
    sums = {name: _checksum(folder / name) for name in files}
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()), encoding="utf-8")
    for name in (*files, SUMS):
        flush(folder / name)
    flush(folder)
    for name, digest in sums.items():
        _verified.add(_stamp(folder / name, digest))


def read_entry(folder: Path, key: str) -> ImageBank:
    """The bank of an entry, its pictures mapped.

    Raises:
        Damaged: if anything in it differs from what `write_entry` wrote for this key.
        OSError: if it cannot be read at this moment, or not by this user.
    """
    if not stat.S_ISDIR(_info(folder).st_mode):
        raise Damaged("it is no folder")
    sums = _sums(folder)
    stamps = {name: _stamp(folder / name, digest) for name, digest in sums.items()}
    unread = [name for name, stamp in stamps.items() if stamp not in _verified]
    with ThreadPoolExecutor() as pool:  # large banks have several files
        for name, digest in zip(unread, pool.map(_checksum, [folder / name for name in unread]), strict=True):
            if digest != sums[name]:
                raise Damaged(f"the checksum of {name} differs")
            _verified.add(stamps[name])
    try:
        files = len(sums) - 1 - (FACTORS in sums)
        return _bank(folder, json.loads((folder / INDEX).read_bytes()), key, files, FACTORS in sums)
    except (OSError, MemoryError, Damaged):
        raise
    except Exception as error:  # checksums that fit, over something else than a bank
        raise Damaged(f"{type(error).__name__}: {error}") from error


def _sums(folder: Path) -> dict[str, str]:
    """The checksum of each file that the entry must have."""
    _must_be_file(folder / SUMS, 2**20)
    lines = [line.split("  ") for line in (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()]
    last = [FACTORS] if lines and lines[-1][1:] == [FACTORS] else []
    files = len(lines) - 1 - len(last)
    names = [INDEX, *(shards.shard_path(folder, number).name for number in range(files)), *last]
    if files < 1 or [line[1:] for line in lines] != [[name] for name in names]:
        raise Damaged(f"{SUMS} does not list the files of an entry")
    for name in names:
        _must_be_file(folder / name, MAX_INDEX_BYTES if name == INDEX else None)
    return {line[1]: line[0] for line in lines}


def _info(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise Damaged(f"{path.name} is missing") from error
        raise


def _must_be_file(path: Path, most: int | None) -> None:
    info = _info(path)
    if not stat.S_ISREG(info.st_mode):  # a pipe would be waited on for ever
        raise Damaged(f"{path.name} is no file")
    if most is not None and info.st_size > most:
        raise Damaged(f"{path.name} has more than {most:,} bytes")


def _stamp(path: Path, digest: str) -> tuple[int | str, ...]:
    info = path.stat()
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, digest


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(2**20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def flush(path: Path) -> None:
    """To the disk, so that a power cut after the rename finds contents and not zeros."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # a system that opens no folders
            return
        raise
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems flush no folders
            raise
    finally:
        os.close(handle)


def _listed(attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    return {name: {"values": each.values.tolist(), "names": each.names} for name, each in attributes.items()}


def _attributes(listed: Mapping[str, Any]) -> dict[str, Attribute]:
    return {name: Attribute(torch.tensor(a["values"]), tuple(a["names"])) for name, a in listed.items()}


def _factors(folder: Path, names: Any) -> Factors:
    if any(type(name) is not str for name in names):
        raise Damaged("names of factors that are no names")
    return Factors(torch.from_numpy(np.load(folder / FACTORS, allow_pickle=False)), tuple(names))


def _bank(folder: Path, index: Any, key: str, files: int, factors: bool) -> ImageBank:
    if index["key"] != key or index["files"] != files or ("factors" in index) != factors:
        raise Damaged("it is another bank's")
    offsets, names = index["offsets"], index["class_names"]
    if any(type(n) is not int for n in offsets) or offsets[0] != 0 or sorted(offsets) != offsets:
        raise Damaged("offsets that do not ascend from 0")
    if any(type(name) is not str for name in names) or len(set(names)) != len(names):
        raise Damaged("class names that are no names, or not unique")
    try:
        return ImageBank(
            images=shards.mapped(folder, files),
            offsets=torch.tensor(offsets),
            class_names=tuple(names),
            dataset=index["dataset"],
            split=index["split"],
            polarity=index["polarity"],
            attributes=_attributes(index["attributes"]),
            notes=tuple(index["notes"]),
            factors=_factors(folder, index["factors"]) if factors else None,
            image_attributes=_attributes(index.get("image_attributes", {})),
        )
    except InputError as error:
        raise Damaged(str(error)) from error
