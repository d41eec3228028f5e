"""Decoded banks on disk: decoded once, class by class, mapped into memory afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from episodes import shards
from episodes.bank import Attribute, ImageBank

_FORMAT = 1

# gives the name and the pictures, uint8 [n, C, H, W], of a class at a time, and returns the bank's other fields
Decoding = Generator[tuple[str, Tensor], None, dict[str, Any]]


def cache_folder() -> Path:
    """``$METAGVAE_CACHE``, or ``metagvae`` in the user's cache folder."""
    given = os.environ.get("METAGVAE_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "metagvae"


def _save(decoding: Decoding, folder: Path) -> None:
    names: list[str] = []
    counts = [0]

    def take(name: str, images: Tensor) -> None:
        writer.add(images)
        names.append(name)
        counts.append(len(images))

    with shards.ShardWriter(folder, shards.SHARD_BYTES) as writer:
        fields = _drain(decoding, take)
    attributes = fields.pop("attributes", {})
    meta = {
        **fields,
        "offsets": torch.tensor(counts).cumsum(0).tolist(),
        "class_names": names,
        "attributes": {name: {"values": a.values.tolist(), "names": a.names} for name, a in attributes.items()},
        "files": writer.files,
    }
    (folder / "bank.json").write_text(json.dumps(meta), encoding="utf-8")


def _load(folder: Path) -> ImageBank:
    if not all((folder / name).is_file() for name in ("bank.json", "images.npy")):
        raise FileNotFoundError(folder)  # or pipes, which would be waited on for ever
    meta = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
    return ImageBank(
        images=shards.mapped(folder, meta.get("files", 1)),
        offsets=torch.tensor(meta["offsets"]),
        class_names=tuple(meta["class_names"]),
        dataset=meta["dataset"],
        split=meta["split"],
        polarity=meta["polarity"],
        attributes={
            name: Attribute(torch.tensor(a["values"]), tuple(a["names"])) for name, a in meta["attributes"].items()
        },
        notes=tuple(meta["notes"]),
    )


def _drain(decoding: Decoding, take: Callable[[str, Tensor], None]) -> dict[str, Any]:
    """Hands on every class; what the generator returned."""
    while True:
        try:
            name, images = next(decoding)
        except StopIteration as end:
            return dict(end.value)
        take(name, images)


def _in_memory(decoding: Decoding) -> ImageBank:
    classes: list[tuple[str, Tensor]] = []
    fields = _drain(decoding, lambda name, images: classes.append((name, images)))
    return ImageBank.from_classes(classes, **fields)


def _classes(bank: ImageBank) -> Decoding:
    for number, name in enumerate(bank.class_names):
        yield name, bank.images[int(bank.offsets[number]) : int(bank.offsets[number + 1])]
    return {name: getattr(bank, name) for name in ("dataset", "split", "polarity", "attributes", "notes")}


def _stored(folder: Path) -> ImageBank | None:
    """The bank of a cache entry; None if there is none, or a damaged one, which is removed."""
    if folder.is_dir():
        try:
            return _load(folder)
        except Exception:  # whatever is wrong with it, it can be built again
            shutil.rmtree(folder, ignore_errors=True)
    return None


def cached_classes(key: dict[str, Any], decode: Callable[[], Decoding]) -> ImageBank:
    """The bank that ``key`` names, from the cache or decoded into it, one class in memory at a time.

    Args:
        key: everything the bank depends on: data set, split, options, the source's fingerprint.
        decode: begins the decoding; asked again if the cache turns out to have no room.

    The folder is written beside and renamed, so a crash leaves none half-written. Where the cache cannot be
    written the bank is still returned, in memory. A damaged cache entry is built again.
    """
    text = json.dumps({**key, "format": _FORMAT}, sort_keys=True, default=str)
    folder = cache_folder() / f"{key.get('dataset', 'bank')}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"
    bank = _stored(folder)
    if bank is not None:
        return bank
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
    except OSError:
        return _in_memory(decode())
    try:
        _save(decode(), beside)
        beside.rename(folder)
    except OSError:  # no room, or another process was first
        pass
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return _stored(folder) or _in_memory(decode())


def cached_bank(key: dict[str, Any], build: Callable[[], ImageBank]) -> ImageBank:
    """`cached_classes` for a bank that is built whole, in memory; once built, it is returned as it is."""
    built: list[ImageBank] = []

    def decode() -> Decoding:
        if not built:
            built.append(build())
        return _classes(built[0])

    bank = cached_classes(key, decode)
    return built[0] if built else bank
