"""Hostile files, made from good ones, and every function that takes a file. `scripts/fuzz.py` runs one on the other.

A case is a pure function of its number: the same number makes the same file on every machine.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import random
import shutil
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from episodes import ImageBank, InputError
from episodes.cache import cached_bank
from episodes.datasets import make_dataset
from episodes.datasets.miniimagenet import ravi_split
from episodes.sources import open_picture, to_tensor
from metagvae import config as sections
from metagvae.build import load_learner, load_vae
from metagvae.checkpoints import load_encoder, read_card, write_tensors
from metagvae.compare import choose_dataset, describe
from metagvae.importing import import_weights
from metagvae.pretraining import pretrain
from metagvae.training import build_parts, train

FORMATS = ("png", "jpg", "bmp", "gif", "webp", "tif", "ppm")


def pictures() -> ImageBank:
    rng = np.random.default_rng(0)
    parts = [(f"c{i}", torch.from_numpy(rng.integers(0, 255, (4, 1, 16, 16), dtype=np.uint8))) for i in range(6)]
    return ImageBank.from_classes(parts)


def _run(folder: Path) -> dict[str, Any]:
    return {"folder": str(folder), "log_every": 2, "save_every": 2, "device": "cpu"}


def pretrain_config(folder: Path, resume: bool = False) -> sections.PretrainConfig:
    return sections.PretrainConfig(
        encoder=sections.EncoderSection(width=4, latent=9),
        vae=sections.VAESection(decoder_width=4, guidance=[{"name": "deformable_pca"}]),
        batch=4,
        optim=sections.OptimSection(steps=2, precision="float32"),
        run=sections.RunSection(**_run(folder), resume=resume),
    )


def _png(size: int = 12, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(np.random.default_rng(size).integers(0, 255, (size, size, 3), dtype=np.uint8))
    picture.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(kind, kind.upper()))
    return buffer.getvalue()


def make_samples(root: Path) -> None:
    """Good files of every kind, under ``root``."""
    bank = pictures()
    vae = pretrain(pretrain_config(root / "pretrain"), bank)
    config = sections.TrainConfig(
        encoder=sections.EncoderSection(width=4, latent=9),
        learner=sections.LearnerSection("ridge", {"scale": 2.0}),
        episodes=sections.EpisodeSection(2, 1, 1),
        validation=sections.ValidationSection(every=0),
        optim=sections.OptimSection(steps=2, precision="float32"),
        run=sections.RunSection(**_run(root / "train")),
    )
    train(config, bank)
    (root / "config.yaml").write_text(yaml.safe_dump(sections.to_dict(config)))
    torch.save({"state_dict": vae.encoder.state_dict(), "epoch": 3}, root / "weights.pt")
    write_tensors(root / "weights.safetensors", vae.encoder.state_dict())
    settings = {"width": 4, "latent": 9, "size": 16, "polarity": "light", "units": vae.encoder.units}
    (root / "settings.yaml").write_text(yaml.safe_dump(settings))
    with zipfile.ZipFile(root / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(18):
            archive.writestr(f"top/class{number % 6}/{number}.{FORMATS[number % 6]}", _png(12, FORMATS[number % 6]))
    (root / "splits.csv").write_text(
        "class,split\n" + "".join(f"class{i},{'train' if i < 3 else 'test'}\n" for i in range(6))
    )
    for kind in FORMATS:
        (root / f"picture.{kind}").write_bytes(_png(24, kind))
    labels = ravi_split("test")[:3]
    for place in ("mini", "minipkl", "omniglot"):
        (root / place).mkdir()
    rows = [f"{label}_{i}.jpg,{label}" for label in labels for i in range(3)]
    (root / "mini" / "test.csv").write_text("filename,label\n" + "\n".join(rows) + "\n")
    with zipfile.ZipFile(root / "mini" / "images.zip", "w") as archive:
        for row in rows:
            archive.writestr(row.split(",")[0], _png(20, "jpg"))
    images = np.random.default_rng(0).integers(0, 255, (9, 84, 84, 3), dtype=np.uint8)
    table = {label: [3 * i, 3 * i + 1, 3 * i + 2] for i, label in enumerate(labels)}
    (root / "minipkl" / "mini-imagenet-cache-test.pkl").write_bytes(
        pickle.dumps({"image_data": images, "class_dict": table})
    )
    digits = {"images": np.zeros((20, 28, 28), np.uint8), "labels": np.arange(20) % 10}
    (root / "mnist").mkdir()
    np.savez(root / "mnist" / "mnist.npz", **{f"{s}_{k}": v for s in ("train", "test") for k, v in digits.items()})
    for part, count in (("images_background", 8), ("images_evaluation", 3)):
        with zipfile.ZipFile(root / "omniglot" / f"{part}.zip", "w") as archive:
            for number in range(count):
                archive.writestr(f"{part}/A{part[7]}{number}/character01/1.png", _png(8))
    before = os.environ.get("METAGVAE_CACHE")
    os.environ["METAGVAE_CACHE"] = str(root / "cache")
    cached_bank({"dataset": "fuzz"}, pictures)
    if before is None:
        del os.environ["METAGVAE_CACHE"]
    else:
        os.environ["METAGVAE_CACHE"] = before


def _cli(folder: Path) -> None:
    """What ``metagvae train --config`` does up to the first step."""
    from metagvae.cli.commands import CONFIGURED
    from metagvae.cli.main import main

    before = CONFIGURED["train"]
    CONFIGURED["train"] = (before[0], lambda config: (config.data.make(), build_parts(config, pictures())))
    try:
        status = main(["train", "--config", str(folder / "config.yaml"), "--run.folder", str(folder / "out")])
    except SystemExit as error:
        status = error.code
    finally:
        CONFIGURED["train"] = before
    if status == 2:
        raise InputError("said at the command line")
    assert status == 0, status


def _picture(folder: Path) -> None:
    for path in folder.glob("picture.*"):
        to_tensor(open_picture(path.read_bytes(), path.name), 28, 3)


def _import(name: str) -> Callable[[Path], object]:
    return lambda f: import_weights(f / name, f / "settings.yaml", f / "out", {}, False, False)


def _cached(folder: Path) -> None:
    bank = cached_bank({"dataset": "fuzz"}, pictures)
    assert bank.gather(torch.arange(len(bank))).shape == (24, 1, 16, 16)


@dataclass(frozen=True)
class Entry:
    """A function that takes a file: what it needs, what of that is corrupted, how it is called."""

    needs: tuple[str, ...]
    corrupts: tuple[str, ...]
    call: Callable[[Path], object]


def _folder(folder: Path) -> None:
    make_dataset("folder", root=str(folder / "pictures.zip"), size=16).load("train")


def _splits(folder: Path) -> None:
    table = str(folder / "splits.csv")
    make_dataset("folder", root=str(folder / "pictures.zip"), size=16, splits_csv=table).load("train")


ENTRIES = {
    "encoder": Entry(
        ("pretrain/encoder",),
        ("pretrain/encoder/config.json", "pretrain/encoder/model.safetensors"),
        lambda f: (load_encoder(f / "pretrain/encoder")(torch.rand(2, 1, 16, 16)), read_card(f / "pretrain/encoder")),
    ),
    "vae of a run": Entry(
        ("pretrain",),
        ("pretrain/config.yaml", "pretrain/vae.safetensors"),
        lambda f: load_vae(f / "pretrain"),
    ),
    "learner of a run": Entry(
        ("train",),
        ("train/config.yaml", "train/learner.safetensors"),
        lambda f: (load_learner(f / "train"), choose_dataset([str(f / "train")], None)),
    ),
    "run's card and curves": Entry(
        ("train",),
        ("train/encoder/config.json", "train/metrics.jsonl"),
        lambda f: describe(str(f / "train")),
    ),
    "resume": Entry(
        ("pretrain",),
        ("pretrain/state/step-0000002.pt", "pretrain/config.yaml", "pretrain/data.json", "pretrain/metrics.jsonl"),
        lambda f: pretrain(pretrain_config(f / "pretrain", resume=True), pictures()),
    ),
    "import torch file": Entry(("weights.pt", "settings.yaml"), ("weights.pt", "settings.yaml"), _import("weights.pt")),
    "import safetensors": Entry(
        ("weights.safetensors", "settings.yaml"),
        ("weights.safetensors", "settings.yaml"),
        _import("weights.safetensors"),
    ),
    "train --config": Entry(("config.yaml",), ("config.yaml",), _cli),
    "picture": Entry((), tuple(f"picture.{kind}" for kind in FORMATS), _picture),
    "zip of pictures": Entry(("pictures.zip",), ("pictures.zip",), _folder),
    "table of splits": Entry(("pictures.zip", "splits.csv"), ("splits.csv",), _splits),
    "miniImageNet csv": Entry(
        ("mini",),
        ("mini/test.csv", "mini/images.zip"),
        lambda f: make_dataset("miniimagenet", root=str(f / "mini"), size=16).load("test"),
    ),
    "miniImageNet pickle": Entry(
        ("minipkl",),
        ("minipkl/mini-imagenet-cache-test.pkl",),
        lambda f: make_dataset("miniimagenet", root=str(f / "minipkl")).load("test"),
    ),
    "omniglot zip": Entry(
        ("omniglot",),
        ("omniglot/images_background.zip",),
        lambda f: make_dataset("omniglot", root=str(f / "omniglot"), splits="lake", size=16).load("train"),
    ),
    "MNIST arrays": Entry(
        ("mnist",),
        ("mnist/mnist.npz",),
        lambda f: make_dataset("mnist", root=str(f / "mnist")).load("test"),
    ),
    "cache": Entry(("cache",), ("cache/images.npy", "cache/bank.json"), _cached),
}


class Payload:
    """Runs a command when unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def _hash_bomb() -> bytes:
    """A dict whose key is a tuple of tuples of tuples: its hash takes 2 ** 60 steps."""
    return b"\x80\x02}" + b")" + b"q\x01h\x01\x86" * 60 + b"K\x01s."


def _nested(kind: bytes, depth: int) -> bytes:
    return b"\x80\x02" + kind * depth + b"." if kind != b"(" else b"\x80\x02" + b"(" * depth + b"t" * depth + b"."


def hostile_pickles(canary: Path) -> list[bytes]:
    laughs = b"\x80\x02]" + b"q\x00]" + b"".join(b"(h%ch%ce" % (0, 0) for _ in range(40)) + b"."
    return [
        *(pickle.dumps(Payload(canary), protocol) for protocol in (0, 2, 4, 5)),
        *(
            pickle.dumps({"image_data": Payload(canary), "class_dict": {}, "state_dict": {}}, protocol)
            for protocol in (0, 2, 5)
        ),
        f"cos\nsystem\n(S'touch {canary}'\ntR.".encode(),
        f"(S'touch {canary}'\nios\nsystem\n.".encode(),
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x0bexit('ran')\x85R.",
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR.",
        b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00a\x85R.",
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".",
        b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"\xff" * 100 + b".",
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"\x80\x02]r\xff\xff\xff\x7f.",
        b"L" + b"9" * 100_000 + b"L\n.",
        _hash_bomb(),
        laughs,
        _nested(b"(", 100_000),
        _nested(b"]", 100_000),
        b"\x80\x02" + b"N" * 5_000_000 + b".",
        b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86tR.",
        b"\x80\x02}("
        + b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(50_000))
        + b"u.",
        b"",
        b".",
        b"\x80",
        b"\x80\xff.",
    ]


def hostile_yaml() -> list[bytes]:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
    )
    merges = "a: &a {x: 1, y: 2}\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{', '.join(['*' + chr(97 + i)] * 9)}]}}\n" for i in range(12)
    )
    lines = [
        laughs,
        merges,
        "kind: train\n" + laughs,
        "encoder: &e {width: *e}\n",
        "[" * 60_000,
        "{a: " * 30_000,
        "- " * 30_000,
        "? " * 20_000,
        "kind: !!python/object/apply:os.system ['exit 1']\n",
        "kind: !!timestamp x\n",
        "kind: !!int ''\n",
        "kind: !!float ''\n",
        "kind: !!bool x\n",
        "kind: !!binary x\n",
        "kind: 2001-99-99\n",
        "width: 0x" + "f" * 60_000 + "\n",
        "width: " + "9" * 60_000 + "\n",
        "width: " + "1:" * 20_000 + "1\n",
        "\x00",
        "\ufeff{",
        'a: "\\ud800"\n',
        "a: 'x\n",
        "%YAML 9.9\n---\n",
        "=: =\n",
        "&a a: *b\n",
        "kind: train\nkind: pretrain\n",
        "x" * 2_000_000,
        "- x\n" * 15_000,
        "a: |\n" + " x\n" * 20_000,
    ]
    return [line.encode("utf-8", "surrogatepass") for line in lines]


def hostile_json() -> list[bytes]:
    card = '{"format": "metagvae-encoder/1", "encoder": %s, "card": %s}'
    lines = [
        "[" * 100_000,
        '{"a":' * 100_000,
        "1" * 100_000,
        '{"encoder": ' + "9" * 100_000 + "}",
        "null",
        "[]",
        '"x"',
        "{}",
        "NaN",
        card % ("[]", "{}"),
        card % ("{}", "[]"),
        card % ('{"width": 1e999}', "{}"),
        card % ('{"width": true}', "{}"),
        card % ('{"width": 1000000000}', "{}"),
        card % ('{"width": 1024, "latent": 4096, "size": 512}', "{}"),
        card % ('{"units": {"content": "abcdefgh"}}', "{}"),
        card % ('{"features": "latent"}', "{}"),
        card % ('{"features": ' + json.dumps(["latent"] * 50_000) + "}", "{}"),
        card % ('{"std": "x"}', "{}"),
        card % ('{"mean": NaN}', "{}"),
        card % ('{"backbone": ["conv4"]}', '{"trained_classes": 3}'),
        card % ('{"width": 4}', '{"details": {"provenance": 3}}'),
        " " * 3_000_000,
        "\ud800",
        '"\\ud800"',
        "\x00",
    ]
    return [line.encode("utf-8", "surrogatepass") for line in lines]


def _safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def hostile_safetensors(good: bytes) -> list[bytes]:
    (length,) = struct.unpack("<Q", good[:8])
    header, data = json.loads(good[8 : 8 + length]), good[8 + length :]
    name = next(key for key in header if key != "__metadata__")
    cases = [_safetensors(header, data, n) for n in (0, 1, 2**20 + 1, 2**31, 2**40, 2**62, 2**64 - 1)]

    def changed(**change: Any) -> bytes:
        forged = copy.deepcopy(header)
        forged[name].update(change)
        return _safetensors(forged, data)

    cases += [
        changed(shape=shape) for shape in ([2**40], [2**32, 2**32], [-1], [0, 2**62], "x", [1.5], [2**64], [10**30], [])
    ]
    cases += [
        changed(data_offsets=at)
        for at in ([0, 2**40], [4, 0], [-4, 0], [0, 0], [0, len(data)], "x", [0], [2**63, 2**64 - 1])
    ]
    cases += [
        changed(dtype=kind) for kind in ("F64", "I8", "U8", "BOOL", "F8_E4M3", "C64", "F16", "BF16", "X", 3, None)
    ]
    overlap = copy.deepcopy(header)
    for key in overlap:
        if key != "__metadata__":
            overlap[key]["data_offsets"] = header[name]["data_offsets"]
    many = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(12_000)}
    cases += [
        _safetensors(overlap, data),
        _safetensors(many),
        _safetensors({**header, "__metadata__": 3}, data),
        _safetensors({**header, "__metadata__": {"x": "y" * 900_000}}, data),
        _safetensors(b"[" * 500_000, data),
        _safetensors(b"{" * 500_000, data),
        _safetensors([], data),
        _safetensors(b"\xff" * 100, data),
        _safetensors({}, b""),
        _safetensors(header, data + b"x"),
        _safetensors(header, data[:-1]),
        b"",
        b"\0" * 8,
        _safetensors(header, b"\xff" * len(data)),
        _safetensors({**header, "../../x": header[name]}, data),
    ]
    return cases


def _zip(members: list[tuple[Any, bytes]], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of members written twice, on purpose
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def _forged(data: bytes, signature: bytes, at: int, value: bytes) -> bytes:
    """``value`` written ``at`` bytes into every record that starts with ``signature``."""
    forged, place = bytearray(data), data.find(signature)
    while place >= 0:
        forged[place + at : place + at + len(value)] = value
        place = data.find(signature, place + 4)
    return bytes(forged)


def _overlapping() -> bytes:
    """Many names for one member, the zip bomb that no ratio of a member gives away."""
    good = _zip([("top/a/1.png", b"\0" * 60_000_000)])
    end = good.rfind(b"PK\5\6")
    start = good.find(b"PK\1\2")
    entries = b"".join(
        good[start:end].replace(b"top/a/1", b"top/%c/%c" % (97 + i % 26, 97 + i // 26)) for i in range(200)
    )
    return good[:start] + entries + good[end : end + 8] + struct.pack("<HHLL", 200, 200, len(entries), start) + b"\0\0"


def hostile_zips(root: Path) -> list[bytes]:
    link = zipfile.ZipInfo("top/a/1.png")
    link.external_attr = 0o120777 << 16
    names = (
        "../../escaped.png",
        "/escaped.png",
        str(root / "escaped.png"),
        "..\\escaped.png",
        "C:/escaped.png",
        "a/../../escaped.png",
    )
    good = _zip([(f"top/c{i % 6}/{i}.png", _png()) for i in range(12)])
    zeros = b"\0" * 60_000_000
    return [
        *(_zip([(name, _png()), ("top/a/1.png", _png())]) for name in names),
        _zip([(link, b"/etc/passwd")]),
        _zip([(f"top/c{i}/1.png", zeros) for i in range(8)]),
        _overlapping(),
        _zip([("top/a/1.png", zeros)]),
        _zip([(f"top/c{i % 6}/{i}.png", b"") for i in range(30_000)], zipfile.ZIP_STORED),
        _zip([(f"top/c{i}/1.png", _png()) for i in range(6)], zipfile.ZIP_LZMA),
        _zip([(f"top/c{i}/1.png", _png()) for i in range(6)], zipfile.ZIP_BZIP2),
        _zip([("a/" * 3000 + "1.png", _png())]),
        _zip([("top/a/splits.csv", b"class,split"), ("splits.csv", b"\0" * 9)]),
        _zip([("top/a/1.png", good)]),
        _zip([]),
        good + good,
        good[:-22],
        _forged(good, b"PK\1\2", 8, b"\1\0"),
        _forged(good, b"PK\3\4", 6, b"\1\0"),
        _forged(good, b"PK\1\2", 24, b"\xff" * 4),
        _forged(good, b"PK\1\2", 20, b"\xff" * 4),
        _forged(good, b"PK\1\2", 42, b"\xff" * 4),
        _forged(good, b"PK\1\2", 42, b"\0" * 4),
        _forged(good, b"PK\1\2", 10, b"\x63\0"),
        _forged(good, b"PK\1\2", 28, b"\xff\xff"),
        _forged(good, b"PK\1\2", 30, b"\xff\xff"),
        _forged(good, b"PK\5\6", 12, b"\xff" * 4),
        _forged(good, b"PK\5\6", 16, b"\xff" * 4),
        _forged(good, b"PK\5\6", 8, b"\xff" * 4),
        _forged(good, b"PK\1\2", 16, b"\0" * 4),
        _forged(good, b"PK\3\4", 26, b"\xff\xff"),
        b"PK\5\6" + b"\0" * 18,
        b"PK\3\4",
    ]


def hostile_torch(good: bytes, canary: Path) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    root = members[0][0].split("/")[0]

    def with_pickle(data: bytes, kind: int = zipfile.ZIP_STORED) -> bytes:
        return _zip([(name, data if name.endswith("data.pkl") else old) for name, old in members], kind)

    program = dict(members)[f"{root}/data.pkl"]
    sizes = [
        program.replace(b"K\x04", new, 1)
        for new in (b"J\xff\xff\xff\x7f", b"K\xff", b"J\xff\xff\xff\xff", b"\x8a\x08" + b"\xff" * 7 + b"\x7f")
    ]
    legacy, tar, script = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.zeros(3), "b": Payload(canary)}, legacy, _use_new_zipfile_serialization=False)
    with tarfile.open(fileobj=tar, mode="w") as archive_tar:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(Payload(canary))
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive_tar.addfile(info, io.BytesIO(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its age
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    whole = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2), whole)
    return [
        *(with_pickle(data) for data in [*hostile_pickles(canary), *sizes]),
        with_pickle(program, zipfile.ZIP_DEFLATED),
        _zip([*members, ("archive/data/9", b"\0" * 100_000_000)]),
        _zip(members[:-4], zipfile.ZIP_STORED),
        _zip([m for m in members if "/data/" not in m[0]], zipfile.ZIP_STORED),
        _zip([(n, d[:-1] if "/data/" in n else d) for n, d in members], zipfile.ZIP_STORED),
        _zip([(n, d + b"\0" * 4 if "/data/" in n else d) for n, d in members], zipfile.ZIP_STORED),
        _zip([(n.replace(root, "..", 1), d) for n, d in members], zipfile.ZIP_STORED),
        _zip([(n, b"big" if n.endswith("byteorder") else d) for n, d in members], zipfile.ZIP_STORED),
        _zip(members + members, zipfile.ZIP_STORED),
        _forged(good, b"PK\1\2", 24, b"\xff\xff\xff\x7f"),
        _forged(good, b"PK\1\2", 8, b"\1\0"),
        legacy.getvalue(),
        tar.getvalue(),
        script.getvalue(),
        whole.getvalue(),
        *hostile_pickles(canary),
    ]


def hostile_tables() -> list[bytes]:
    return [
        b"",
        b"\0",
        b"class,split\n\0,\0\n",
        b"class,split\n" + b"x" * 200_000 + b",train\n",
        b'class,split\n"' + b"x" * 200_000,
        b"class,split\nclass0\n",
        b"class,split\n,,,,,,\n",
        b"a,b\n1,2\n",
        b"," * 200_000,
        b"class,split\n" * 50_000,
        b"filename,label\n" + b"x" * 200_000 + b",y\n",
        b"filename,label\n../../etc/passwd,n01930112\n",
        b"filename,label\na\n",
        b"filename,label\n\0,n01930112\n",
        b"\xff\xfe\x00",
        b"x" * 17_000_000,
        b'filename,label\n"' + b"x" * 200_000,
        b"\r" * 100_000,
        b"class;split\nclass0;train\nclass0;test\n",
        b"class,split\nclass0,prod\n",
        "class,split\nclass0,tráin\n".encode("latin-1"),
    ]


def _picture_file(kind: str, size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def _claiming(kind: str, width: int, height: int) -> bytes:
    """A small picture whose header claims to be ``width`` x ``height``."""
    data = bytearray(_png(24, kind))
    if kind == "png":
        import zlib

        data[16:24] = struct.pack(">LL", width, height)
        data[29:33] = struct.pack(">L", zlib.crc32(data[12:29]))
    elif kind == "bmp":
        data[18:26] = struct.pack("<ll", width, height)
    elif kind == "gif":
        data[6:10] = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    elif kind == "jpg":
        at = data.find(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    elif kind == "ppm":
        data = bytearray(b"P6\n%d %d\n255\n" % (width, height) + b"\0" * 99)
    elif kind == "tif":
        data = bytearray(data.replace(struct.pack("<HHLL", 256, 4, 1, 24), struct.pack("<HHLL", 256, 4, 1, width)))
        data = bytearray(data.replace(struct.pack("<HHLHH", 256, 3, 1, 24, 0), struct.pack("<HHLL", 256, 4, 1, width)))
    return bytes(data)


def hostile_pictures() -> list[bytes]:
    wide = [
        _claiming(kind, *size)
        for kind in FORMATS
        for size in ((50_000, 50_000), (2**31 - 1, 2**31 - 1), (19_999, 3_200), (0, 0))
    ]
    progressive = _picture_file("JPEG", (6000, 6000), "L", progressive=True)
    scan = progressive[progressive.rfind(b"\xff\xda") : -2]
    text = b"P3\n2000 2000\n255\n" + b"1 " * 12_000_000
    runs = bytearray(_picture_file("BMP", (4000, 4000), "L"))
    runs[30:34] = struct.pack("<L", 1)
    return [
        *wide,
        _picture_file("PNG", (8000, 8000), "1"),
        _picture_file("PNG", (10_000, 10_000), "1"),
        _picture_file("PNG", (5990, 5990)),
        _picture_file("PNG", (5190, 5190), "RGBA"),
        _picture_file("PNG", (7000, 7000), "RGBA"),
        _picture_file("PNG", (5190, 5190), "P", transparency=0),
        _picture_file("PNG", (4000, 4000), "I;16"),
        _picture_file("JPEG", (8000, 8000)),
        _picture_file("JPEG", (8000, 8000), progressive=True),
        _picture_file("WEBP", (5990, 5990), lossless=True, method=0),
        _picture_file("GIF", (8000, 8000), "L"),
        _picture_file("TIFF", (5190, 5190), "RGBA", compression="tiff_deflate"),
        progressive[:-2] + scan * 2000 + b"\xff\xd9",
        text,
        bytes(runs),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"MZ" + b"\0" * 200,
        b"",
    ]


def hostile_arrays() -> list[bytes]:
    def npy(header: str) -> bytes:
        text = header.encode() + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"\0" * 100

    good = "{'descr': '|u1', 'fortran_order': False, 'shape': %s}"
    shapes = ("(10**12,)", "(1099511627776,)", "(-1,)", "(2, 2, 2, 2)", "()", "((1,),)", "(24, 1, 16, 17)")
    return [
        *(npy(good % shape) for shape in shapes),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"),
        npy("("),
        npy("(" * 5000),
        npy("__import__('os')"),
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x93NUMPY\x09\x00",
        b"",
        b"PK\5\6" + b"\0" * 18,
    ]


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


def crafted(root: Path, name: str, canary: Path) -> list[bytes]:
    """Files made by hand to take the place of the sample ``name``."""
    good = (root / name).read_bytes() if (root / name).is_file() else b""
    suffix = Path(name).suffix
    if suffix == ".safetensors":
        return hostile_safetensors(good)
    if suffix == ".pt":
        return hostile_torch(good, canary)
    if suffix == ".zip":
        return hostile_zips(root)
    if suffix == ".yaml":
        return hostile_yaml()
    if suffix in (".json", ".jsonl"):
        return hostile_json()
    if suffix == ".csv":
        return hostile_tables()
    if suffix == ".pkl":
        return hostile_pickles(canary)
    if suffix == ".npz":
        bombs = [
            _zip([("test_images.npy", b"\0" * 100_000_000)]),
            *(_zip([("test_images.npy", x)]) for x in hostile_arrays()),
        ]
        return [*bombs, *hostile_pickles(canary), *hostile_zips(root)]
    if suffix == ".npy":
        return hostile_arrays()
    return hostile_pictures() if name == "picture.png" else []


ODD = ("pipe", "folder", "dangling", "loop", "zero")  # things of another kind in the file's place


def sample(folder: Path, target: str) -> Path:
    """The file ``target`` in ``folder``; a cache entry lies in a folder named by a hash."""
    return next(folder.glob(target.replace("cache/", "cache/*/")))


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


def write_crafted(samples: Path, folder: Path, canary: Path) -> list[tuple[str, str, Path | str]]:
    """Every hand-made case for every entry and target; the files are written to ``folder``, one copy of each."""
    cases: list[tuple[str, str, Path | str]] = []
    folder.mkdir()
    written: dict[str, list[Path]] = {}
    for name, entry in ENTRIES.items():
        for target in entry.corrupts:
            if target not in written:
                written[target] = []
                for data in crafted(samples, target, canary):
                    written[target].append(folder / f"{sum(map(len, written.values()))}")
                    written[target][-1].write_bytes(data)
            cases += [(name, target, path) for path in written[target]]
            if not target.startswith("picture."):
                cases += [(name, target, kind) for kind in ODD]
    return cases
