"""Cases: a hostile file in the place of a good one. A case is a pure function of its number."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.hostile.archives import hostile_safetensors, hostile_tars, hostile_zips, make_zip
from tests.hostile.entries import ENTRIES, Entry
from tests.hostile.images import hostile_arrays, hostile_pictures
from tests.hostile.metadata import metadata_bombs
from tests.hostile.programs import hostile_pickles, hostile_torch
from tests.hostile.samples import sample
from tests.hostile.texts import (
    hostile_architectures,
    hostile_glosses,
    hostile_json,
    hostile_tables,
    hostile_yaml,
)

_VALUES: tuple[Any, ...] = (
    10**9,
    -1,
    0,
    2**63,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "x" * 20_000,
    None,
    True,
    [],
    {},
    [None] * 2000,
    {"a": 1},
    "../../escaped",
    "/dev/zero",
    "\u202e",
    [[[[[[[[]]]]]]]],
    {"name": "maml"},
    [{"name": "deformable_pca", "weight": "x"}],
)


def _edited(content: Any, rng: random.Random) -> Any:
    """The tree with one value, or one key, changed."""
    content = copy.deepcopy(content)
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return content
        key = rng.choice(keys)
        deeper = place[key]
        if isinstance(deeper, dict | list) and deeper and rng.random() < 0.8:
            place = deeper
        elif rng.random() < 0.15:
            place.pop(key)
            return content
        else:
            place[key] = copy.deepcopy(rng.choice(_VALUES))
            return content


def _damaged(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Bits flipped, bytes cut, doubled, overwritten, or another file's contents altogether."""
    kind = rng.choice(("flip", "flip", "flip", "cut", "cut", "number", "number", "double", "zero", "garbage", "swap"))
    changed = bytearray(data)
    at = rng.randrange(max(1, len(data)))
    at = min(at, rng.randrange(4096)) if rng.random() < 0.5 else at  # headers stand at the front
    if kind == "flip":
        for _ in range(rng.choice((1, 1, 2, 8, 64))):
            if changed:
                changed[rng.randrange(len(changed)) if rng.random() < 0.5 else at % len(changed)] ^= 1 << rng.randrange(
                    8
                )
    elif kind == "cut":
        del changed[at:]
    elif kind == "number":
        changed[at : at + 8] = rng.choice((b"\xff" * 8, b"\xff" * 4, b"\x7f" * 4, b"\0" * 8, struct.pack("<Q", 2**40)))
    elif kind == "double":
        changed[at:at] = changed[at : at + rng.randrange(1, 5000)]
    elif kind == "zero":
        changed[at : at + 64] = b"\0" * 64
    elif kind == "garbage":
        changed[at : at + 32] = rng.randbytes(32)
    else:
        return rng.choice(others)
    return bytes(changed)


def crafted(root: Path, name: str, canary: Path) -> Sequence[bytes | Callable[[], bytes]]:
    """Files made by hand to take the place of the sample ``name``, or makers of them."""
    good = (root / name).read_bytes() if (root / name).is_file() else b""
    suffix = Path(name).suffix
    if suffix == ".safetensors":
        return hostile_safetensors(good)
    if suffix == ".pt":
        return hostile_torch(good, canary)
    if suffix == ".zip":
        return hostile_zips(root)
    if suffix == ".tgz":
        return hostile_tars(good)
    if suffix == ".noun":
        return hostile_glosses(good)
    if suffix == ".yaml":
        return hostile_yaml()
    if suffix in (".json", ".jsonl"):
        return [*hostile_json(), *(hostile_architectures() if name.startswith("hub/") else [])]
    if suffix == ".csv":
        return hostile_tables()
    if suffix == ".pkl":
        return hostile_pickles(canary)
    if suffix == ".npz":
        first = "vectors.npy" if name == "vectors.npz" else "test_images.npy"
        bombs = [make_zip([(first, b"\0" * 100_000_000)]), *(make_zip([(first, x)]) for x in hostile_arrays())]
        return [*bombs, *hostile_pickles(canary), *hostile_zips(root)]
    if suffix == ".npy":
        return hostile_arrays()
    if name == "metadata.png":
        return list(metadata_bombs().values())
    return hostile_pictures() if name == "picture.png" else []


ODD = ("pipe", "folder", "dangling", "loop", "zero")  # things of another kind in the file's place


def place_case(entry: Entry, target: str, what: bytes | str, samples: Path, folder: Path) -> None:
    """Copies what an entry needs into ``folder``, then puts a hostile file, or a thing of `ODD`, at ``target``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in entry.needs:
        if (samples / name).is_dir():
            shutil.copytree(samples / name, folder / name)
        else:
            shutil.copy(samples / name, folder / name)
    path = sample(folder, target) if (folder / target.split("/")[0]).is_dir() else folder / target
    path.unlink(missing_ok=True)
    if isinstance(what, bytes):
        path.write_bytes(what)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to({"dangling": "/nowhere/at/all", "loop": path.name, "zero": "/dev/zero"}[what])


def random_case(number: int, samples: Path) -> tuple[str, str, bytes]:
    """The entry, the target and the contents of random case ``number``."""
    rng = random.Random(number)
    name = rng.choice(list(ENTRIES))
    target = rng.choice(ENTRIES[name].corrupts)
    data = sample(samples, target).read_bytes()
    if target.endswith((".json", ".yaml")) and rng.random() < 0.7:
        content = yaml.safe_load(data) if target.endswith(".yaml") else json.loads(data)
        for _ in range(rng.choice((1, 1, 2))):
            content = _edited(content, rng)
        text = yaml.safe_dump(content) if target.endswith(".yaml") else json.dumps(content)
        return name, target, text.encode("utf-8", "surrogatepass")
    others = [path.read_bytes() for path in sorted(samples.glob("*")) if path.is_file()]
    return name, target, _damaged(data, others, rng)


def write_crafted(samples: Path, folder: Path, canary: Path, every: int = 1) -> list[tuple[str, str, Path | str]]:
    """Every hand-made case, or each ``every``-th, for every entry and target.

    The files are written to ``folder``, one copy of each.
    """
    cases: list[tuple[str, str, Path | str]] = []
    folder.mkdir()
    made: dict[Path, bytes | Callable[[], bytes]] = {}
    places: dict[str, list[Path]] = {}
    for name, entry in ENTRIES.items():
        for target in entry.corrupts:
            if target not in places:
                files = crafted(samples, target, canary)
                places[target] = [folder / f"{len(made) + number}" for number in range(len(files))]
                made.update(zip(places[target], files, strict=True))
            cases += [(name, target, path) for path in places[target]]
            if not target.startswith(("picture.", "metadata.")):
                cases += [(name, target, kind) for kind in ODD]
    chosen = cases[::every]
    for path in {what for _, _, what in chosen if isinstance(what, Path)}:
        content = made[path]
        path.write_bytes(content if isinstance(content, bytes) else content())
    return chosen
