"""Good files of every kind, and every function of the package that takes one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from episodes import ImageBank, InputError
from episodes.datasets import make_dataset
from episodes.datasets.cache import cached_bank
from episodes.datasets.glosses import FIELDS, FILES
from episodes.datasets.miniimagenet_split import ravi_split
from episodes.datasets.udhr import read_package
from episodes.untrusted.sources import open_picture, to_tensor
from metagvae import zoo
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.config import sections as sections
from metagvae.config.dictionary import DictionarySection
from metagvae.encoders.text import TextConfig, TextEncoder
from metagvae.storage.tensors import write_tensors
from metagvae.studies.measured_data import choose_dataset
from metagvae.studies.methods import describe
from metagvae.studies.refine import save_refined
from metagvae.training.dictionaries import learn_dictionary
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain
from metagvae.training.trainee import build_parts
from metagvae.zoo.convert import import_weights
from metagvae.zoo.hub import load_timm_folder, timm_architecture
from metagvae.zoo.trained import load_encoder, read_card

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


def sparse_config(folder: Path, resume: bool = False) -> sections.PretrainConfig:
    return sections.PretrainConfig(
        dictionary=DictionarySection(side=5, atoms=6, steps=5, grid=2, components=4),
        batch=8,
        optim=sections.OptimSection(steps=2),
        run=sections.RunSection(**_run(folder), resume=resume),
    )


def small_picture(size: int = 12, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(np.random.default_rng(size).integers(0, 255, (size, size, 3), dtype=np.uint8))
    picture.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(kind, kind.upper()))
    return buffer.getvalue()


def described_picture(kind: str) -> bytes:
    """A small picture with what a camera writes beside it."""
    picture = Image.new("RGB", (16, 12), (200, 100, 50))
    exif = picture.getexif()
    exif[274], exif[271], exif[282] = 6, "maker", 300.0
    exif.get_ifd(0x8825)[2] = (50.0, 3.0, 7.5)
    buffer = io.BytesIO()
    name = {"jpg": "JPEG", "tif": "TIFF"}.get(kind, kind.upper())
    picture.save(buffer, name, exif=exif, icc_profile=bytes(range(256)), dpi=(300, 300))
    return buffer.getvalue()


def sample(folder: Path, target: str) -> Path:
    """The file ``target`` in ``folder``; a cache entry lies in a folder named by a hash."""
    return next(folder.glob(target.replace("cache/", "cache/*/")))


def make_samples(root: Path) -> None:
    """Good files of every kind, under ``root``."""
    bank = pictures()
    vae = pretrain(pretrain_config(root / "pretrain"), bank)
    save_refined(str(root / "pretrain"), {"steps": 2, "step": 0.1}, root / "refined")
    learn_dictionary(sparse_config(root / "sparse"), bank)
    zoo.save_encoder(TextEncoder(TextConfig(width=4, latent=3, channels=20, size=8)), root / "text")
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
    images, names = bank.images[:, 0].numpy(), [f"c{label}" for label in bank.labels.tolist()]
    FewShotClassifier(vae.encoder, device="cpu", none_label="none").fit(images, names).save(root / "classifier")
    if "Hub folder" in ENTRIES:
        _hub_folder(root / "hub")
    torch.save({"state_dict": vae.encoder.state_dict(), "epoch": 3}, root / "weights.pt")
    write_tensors(root / "weights.safetensors", vae.encoder.state_dict())
    settings = {"width": 4, "latent": 9, "size": 16, "polarity": "light", "units": vae.encoder.units}
    (root / "settings.yaml").write_text(yaml.safe_dump(settings))
    with zipfile.ZipFile(root / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(18):
            archive.writestr(
                f"top/class{number % 6}/{number}.{FORMATS[number % 6]}", small_picture(12, FORMATS[number % 6])
            )
    (root / "splits.csv").write_text(
        "class,split\n" + "".join(f"class{i},{'train' if i < 3 else 'test'}\n" for i in range(6))
    )
    for kind in FORMATS:
        (root / f"picture.{kind}").write_bytes(small_picture(24, kind))
    for kind in ("png", "jpg", "tif"):
        (root / f"metadata.{kind}").write_bytes(described_picture(kind))
    labels = ravi_split("test")[:3]
    for place in ("mini", "minipkl", "omniglot"):
        (root / place).mkdir()
    rows = [f"{label}_{i}.jpg,{label}" for label in labels for i in range(3)]
    (root / "mini" / "test.csv").write_text("filename,label\n" + "\n".join(rows) + "\n")
    with zipfile.ZipFile(root / "mini" / "images.zip", "w") as archive:
        for row in rows:
            archive.writestr(row.split(",")[0], small_picture(20, "jpg"))
    images = np.random.default_rng(0).integers(0, 255, (9, 84, 84, 3), dtype=np.uint8)
    table = {label: [3 * i, 3 * i + 1, 3 * i + 2] for i, label in enumerate(labels)}
    (root / "minipkl" / "mini-imagenet-cache-test.pkl").write_bytes(
        pickle.dumps({"image_data": images, "class_dict": table})
    )
    digits = {"images": np.zeros((20, 28, 28), np.uint8), "labels": np.arange(20) % 10}
    (root / "mnist").mkdir()
    np.savez(root / "mnist" / "mnist.npz", **{f"{s}_{k}": v for s in ("train", "test") for k, v in digits.items()})
    _texts(root)
    for part, count in (("images_background", 8), ("images_evaluation", 3)):
        with zipfile.ZipFile(root / "omniglot" / f"{part}.zip", "w") as archive:
            for number in range(count):
                archive.writestr(f"{part}/A{part[7]}{number}/character01/1.png", small_picture(8))
    before = os.environ.get("METAGVAE_CACHE")
    os.environ["METAGVAE_CACHE"] = str(root / "cache")
    cached_bank({"dataset": "fuzz"}, pictures)
    if before is None:
        del os.environ["METAGVAE_CACHE"]
    else:
        os.environ["METAGVAE_CACHE"] = before


def _texts(root: Path) -> None:
    """An npm package of two declarations, and WordNet's data files with a gloss of every field."""
    article = "<article><h2>Title</h2><p>all are born free and equal in dignity &amp; rights</p></article>"
    with tarfile.open(root / "declarations.tgz", "w:gz") as package:
        for code in ("lat", "eng"):
            page = f'<html data-iso6393="{code}"><body>{article * 21}</body></html>'.encode()
            info = tarfile.TarInfo(f"package/declaration/{code}.html")
            info.size = len(page)
            package.addfile(info, io.BytesIO(page))
    (root / "glosses").mkdir()
    for file in FILES:
        lines = [
            f"{number:08d} {field:02d} n 01 word 0 000 | {field} {number} definition\n"
            for field, name in enumerate(FIELDS)
            for number in range(20)
            if name.startswith(file.removeprefix("data."))
        ]
        (root / "glosses" / file).write_text("  1 Licence\n" + "".join(lines))


def _sparse(folder: Path) -> None:
    encoder = load_encoder(folder / "sparse/encoder")
    assert encoder(torch.rand(2, 1, 16, 16)).isfinite().all()


def _refined(folder: Path) -> None:
    load_encoder(folder / "refined")(torch.rand(2, 1, 16, 16))


def _text(folder: Path) -> None:
    load_encoder(folder / "text")(torch.zeros(2, 1, 1, 8))


def _cli(folder: Path) -> None:
    """The work of ``metagvae train --config`` up to the first step."""
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


def _metadata(folder: Path) -> None:
    for path in folder.glob("metadata.*"):
        to_tensor(open_picture(path.read_bytes(), path.name), 28, 3)


def _import(name: str) -> Callable[[Path], object]:
    return lambda f: import_weights(f / name, f / "settings.yaml", f / "out", {}, False, False)


def _cached(folder: Path) -> None:
    bank, right = cached_bank({"dataset": "fuzz"}, pictures), pictures()
    assert torch.equal(bank.gather(torch.arange(len(bank))), right.images)
    assert (bank.class_names, bank.offsets.tolist()) == (right.class_names, right.offsets.tolist())


def _cached_with_fitting_sums(folder: Path) -> None:
    """As a stranger's cache would be: whatever it holds, its checksums say so."""
    sums = sample(folder, "cache/SHA256SUMS")
    names = [line.split("  ")[1] for line in sums.read_text().splitlines()]
    if all((sums.parent / name).is_file() for name in names):
        digests = {name: hashlib.sha256((sums.parent / name).read_bytes()).hexdigest() for name in names}
        sums.write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))
    bank = cached_bank({"dataset": "fuzz"}, pictures)
    bank.gather(torch.arange(len(bank)))


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


def _hub_folder(folder: Path) -> None:
    """A repository of the Hub in timm's layout."""
    import timm

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vit", "num_classes": 7}))
    write_tensors(folder / "model.safetensors", timm.create_model("test_vit", num_classes=7).state_dict())


def _hub(folder: Path) -> None:
    """The work of ``hub:OWNER/NAME`` once the two files are there."""
    source = timm_architecture(folder / "hub")
    if source is None:
        load_encoder(folder / "hub")
    else:
        load_timm_folder(folder / "hub", source)(torch.rand(1, 3, 32, 32))


def _classifier(folder: Path) -> None:
    loaded = FewShotClassifier.load(folder / "classifier")
    answers = loaded.predict_proba(np.zeros((2, 16, 16), np.uint8))
    assert np.isfinite(answers).all()
    assert len(loaded.predict(np.zeros((1, 16, 16), np.uint8))) == 1


ENTRIES = {
    "saved classifier": Entry(
        ("classifier",),
        ("classifier/classifier.json", "classifier/support.safetensors", "classifier/encoder/config.json"),
        _classifier,
    ),
    "encoder": Entry(
        ("pretrain/encoder",),
        ("pretrain/encoder/config.json", "pretrain/encoder/model.safetensors"),
        lambda f: (load_encoder(f / "pretrain/encoder")(torch.rand(2, 1, 16, 16)), read_card(f / "pretrain/encoder")),
    ),
    "vae of a run": Entry(
        ("pretrain",),
        ("pretrain/config.yaml", "pretrain/vae.safetensors"),
        lambda f: zoo.open(f / "pretrain").vae(),
    ),
    "sparse encoder": Entry(("sparse",), ("sparse/encoder/config.json", "sparse/encoder/model.safetensors"), _sparse),
    "sparse run resumed": Entry(
        ("sparse",),
        ("sparse/state/step-0000002.pt", "sparse/config.yaml"),
        lambda f: learn_dictionary(sparse_config(f / "sparse", resume=True), pictures()),
    ),
    "refined encoder": Entry(("refined",), ("refined/config.json", "refined/model.safetensors"), _refined),
    "text encoder": Entry(("text",), ("text/config.json", "text/model.safetensors"), _text),
    "package of declarations": Entry(
        ("declarations.tgz",), ("declarations.tgz",), lambda f: read_package(f / "declarations.tgz")
    ),
    "WordNet's glosses": Entry(
        ("glosses",),
        ("glosses/data.noun",),
        lambda f: make_dataset("glosses", root=str(f / "glosses"), size=8).load("train"),
    ),
    "learner of a run": Entry(
        ("train",),
        ("train/config.yaml", "train/learner.safetensors"),
        lambda f: (zoo.open(f / "train").learner(), choose_dataset([str(f / "train")], None)),
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
    "picture's metadata": Entry((), ("metadata.png", "metadata.jpg", "metadata.tif"), _metadata),
    "cache": Entry(("cache",), ("cache/images.npy", "cache/bank.json", "cache/SHA256SUMS"), _cached),
    "cache, its checksums made to fit": Entry(
        ("cache",), ("cache/images.npy", "cache/bank.json"), _cached_with_fitting_sums
    ),
}
if find_spec("timm"):  # an extra
    ENTRIES["Hub folder"] = Entry(("hub",), ("hub/config.json", "hub/model.safetensors"), _hub)
