"""Good files of every kind, and every function of the package that takes one."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from episodes import ImageBank
from episodes.datasets.cache import cached_bank
from episodes.datasets.miniimagenet_split import ravi_split
from episodes.untrusted.plain_files import read_json
from metagvae.classifier.conformal import LEVELS
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.config import sections as sections
from metagvae.storage.atomic_files import write_json
from metagvae.storage.tensors import write_tensors
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain
from tests.hostile.codes import make_codes

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
    make_codes(root, bank)
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
    _calibrated_encoder(root)
    vectors = images.reshape(len(images), -1)[:, :7].astype(np.float32)
    np.savez(root / "vectors.npz", vectors=vectors, labels=np.array(names))
    lines = [",".join([name, *map(str, row)]) for name, row in zip(names, vectors.tolist(), strict=True)]
    (root / "vectors.csv").write_text("\n".join(["label,a,b,c,d,e,f,g", *lines]) + "\n")
    if find_spec("timm"):  # an extra
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
    shutil.copy(root / "pictures.zip", root / "examples.zip")
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


def _calibrated_encoder(root: Path) -> None:
    """An encoder whose card holds a calibration and scores of sets."""
    shutil.copytree(root / "pretrain" / "encoder", root / "calibrated")
    content = read_json(root / "calibrated" / "config.json", "an encoder's config")
    name = "+".join(content["encoder"]["features"])
    quantiles = {"1": list(LEVELS), "3": list(LEVELS)}
    content["card"]["details"] |= {
        "calibration": {name: {"temperature": 1.0, "spread": 2.0, "tail": 1.9, "fitted_on": "noise"}},
        "sets": {name: {"genuine": quantiles, "strangers": quantiles, "fitted_on": "noise"}},
    }
    write_json(root / "calibrated" / "config.json", content)


def _hub_folder(folder: Path) -> None:
    """A repository of the Hub in timm's layout."""
    import timm

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vit", "num_classes": 7}))
    write_tensors(folder / "model.safetensors", timm.create_model("test_vit", num_classes=7).state_dict())
