"""Decoded banks on disk: decoded once, mapped into memory afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from episodes.bank import Attribute, ImageBank

_FORMAT = 1


def cache_folder() -> Path:
    """``$METAGVAE_CACHE``, or ``metagvae`` in the user's cache folder."""
    given = os.environ.get("METAGVAE_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "metagvae"


def _save(bank: ImageBank, folder: Path) -> None:
    np.save(folder / "images.npy", bank.images.numpy())
    meta = {
        "offsets": bank.offsets.tolist(),
        "class_names": bank.class_names,
        "dataset": bank.dataset,
        "split": bank.split,
        "polarity": bank.polarity,
        "attributes": {name: {"values": a.values.tolist(), "names": a.names} for name, a in bank.attributes.items()},
        "notes": bank.notes,
    }
    (folder / "bank.json").write_text(json.dumps(meta), encoding="utf-8")


def _load(folder: Path) -> ImageBank:
    if not all((folder / name).is_file() for name in ("bank.json", "images.npy")):
        raise FileNotFoundError(folder)  # or pipes, which would be waited on for ever
    meta = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
    # copy-on-write: torch wants writable memory, the file must stay as it is
    images = np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)
    return ImageBank(
        images=torch.from_numpy(images),
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


def cached_bank(key: dict[str, Any], build: Callable[[], ImageBank]) -> ImageBank:
    """The bank that ``key`` names, from the cache or from ``build``.

    Args:
        key: everything the bank depends on: data set, split, options, the source's fingerprint.
        build: decodes the bank.

    The folder is written beside and renamed, so a crash leaves none half-written. Where the cache cannot be
    written the bank is still returned. A damaged cache entry is built again.
    """
    text = json.dumps({**key, "format": _FORMAT}, sort_keys=True, default=str)
    name = f"{key.get('dataset', 'bank')}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"
    folder = cache_folder() / name
    if folder.is_dir():
        try:
            return _load(folder)
        except Exception:  # whatever is wrong with it, it can be built again
            shutil.rmtree(folder, ignore_errors=True)
    bank = build()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
    except OSError:
        return bank
    try:
        _save(bank, beside)
        beside.rename(folder)
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
    return bank
