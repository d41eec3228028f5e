"""Error and savings of the tools for one's own images: `auto`, the forecast of `fit-check`, `next-to-label`.

Images are embedded once, in pieces that are kept in --features between calls; all else takes minutes.

python experiments/own_images.py --emoji FOLDER --json experiments/results/own-images.json

FOLDER holds the npm packages emoji-datasource-google and emoji-datasource-twitter 16.0.0, unpacked: google/64 and
twitter/64 of their img/, and emoji.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from episodes.datasets import make_dataset
from metagvae import FewShotClassifier
from metagvae.classifier.calibration import Calibration, adapt, gaussian_logits, shortened, squared_distances
from metagvae.classifier.choice import GENERAL, chosen_by_looks, judged, known_looks
from metagvae.classifier.inputs import collect
from metagvae.classifier.look import SIDE, looks
from metagvae.classifier.pictures import batches
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.storage.tensors import read_tensors, write_tensors
from metagvae.studies.learning_curve import learning_curve
from metagvae.studies.next_to_label import next_to_label
from metagvae.zoo.load import installed_encoders

IMAGES = {"digits": 25, "omniglot": 10, "mnist": 25, "miniimagenet": 15, "emoji": 2}  # images a class
CLASSES = 30  # of Omniglot's test characters
DEEP = {"digits": ("handwriting", 170), "mnist": ("handwriting", 150), "miniimagenet": ("photos", 100)}
SEEN = {("omniglot", "handwriting"), ("miniimagenet", "photos")}  # the encoder's training saw these classes


@dataclass(frozen=True)
class Pool:
    """Features ``[n, D]`` of images as many a class."""

    features: Tensor
    each: int
    prior: Calibration | None

    @property
    def classes(self) -> int:
        return len(self.features) // self.each


def images(name: str, each: int, emoji: Path | None) -> Any:
    """Pictures in order of their classes, ``each`` of a class."""
    if name == "emoji":
        assert emoji is not None
        known = json.loads((emoji / "emoji.json").read_text(encoding="utf-8"))
        places = [emoji / "google" / "64", emoji / "twitter" / "64"]
        names = [
            one["image"]
            for one in known
            if one["category"] not in ("Flags", "Component")
            and all((place / one["image"]).is_file() for place in places)
        ]
        chosen = np.random.default_rng(0).permutation(names)[:120]
        return [str(place / name) for name in chosen for place in places]
    bank = make_dataset(name).load("test")
    classes = np.arange(bank.num_classes)
    if bank.num_classes > CLASSES:
        classes = np.random.default_rng(0).permutation(bank.num_classes)[:CLASSES]
    rows = [
        bank.offsets[c] + torch.randperm(int(bank.counts[c]), generator=torch.Generator().manual_seed(int(c)))[:each]
        for c in classes
    ]
    found = bank.images[torch.cat(rows)]
    return (found[:, 0] if found.shape[1] == 1 else found.permute(0, 2, 3, 1)).numpy()


def pool(name: str, encoder: str, each: int, chosen: argparse.Namespace) -> Pool:
    classifier = FewShotClassifier(encoder, device="cpu")
    network, prior = classifier._open()
    file = chosen.features / f"{name}-{encoder}-{each}.safetensors"
    if not file.is_file():
        config = network.config
        pictures = collect(images(name, each, chosen.emoji), config.channels, config.size, None, True)
        scaled = pictures.on(pictures.scale(None, None if config.polarity == "ink" else False))
        with torch.no_grad():
            features = torch.cat([network(part) for part in batches(scaled)])
        chosen.features.mkdir(parents=True, exist_ok=True)
        write_tensors(file, {"features": features})
        print("embedded", file.name, flush=True)
    features = read_tensors(file)["features"]
    return Pool(shortened(features, prior.normalise if prior else 0.0), each, prior)


def looked_at(name: str, each: int, emoji: Path | None) -> Tensor:
    """The look ``[n, 5]`` of each image."""
    pictures = collect(images(name, each, emoji), 3, SIDE, None, True)
    return looks(pictures.on(pictures.scale(None, False)))


def drawn(pool: Pool, way: int, sizes: Sequence[int], generator: np.random.Generator) -> list[Tensor]:
    """Rows of ``way`` classes in parts of so many a class, class after class; the last part is all that is left."""
    classes = generator.permutation(pool.classes)[:way]
    orders = [c * pool.each + torch.from_numpy(generator.permutation(pool.each)) for c in classes]
    ends = np.cumsum([0, *sizes, pool.each - sum(sizes)])
    return [torch.cat([order[a:b] for order in orders]) for a, b in pairwise(ends)]


def error(features: Tensor, support: Tensor, labels: Tensor, query: Tensor, truth: Tensor, prior: Calibration) -> float:
    """Of the classifier's own head."""
    held = features[support]
    calibration = adapt(prior, held, labels, int(labels.max()) + 1)
    counts = torch.bincount(labels)
    means = torch.stack([held[labels == c].double().mean(0) for c in range(len(counts))])
    logits = gaussian_logits(squared_distances(features[query], means), counts, calibration)
    return float((logits.argmax(1) != truth).double().mean())


def auto_rows(chosen: argparse.Namespace) -> list[dict[str, str]]:
    rows = []
    for name, each in IMAGES.items():
        if name == "emoji" and chosen.emoji is None:
            continue
        made = {encoder: pool(name, encoder, each, chosen) for encoder in installed_encoders()}
        pools = {encoder: held for encoder, held in made.items() if held.prior is not None}
        seen, known = looked_at(name, each, chosen.emoji), known_looks()
        way = 5 if name == "miniimagenet" else 10
        for shot in (1, 5) if each > 2 else (1,):
            generator = np.random.default_rng(0)
            alone: dict[str, list[float]] = {encoder: [] for encoder in pools}
            picked, names = [], []
            for _ in range(chosen.draws):
                support, query = drawn(next(iter(pools.values())), way, [shot], generator)
                labels = torch.arange(way).repeat_interleave(shot)
                truth = torch.arange(way).repeat_interleave(len(query) // way)
                for encoder, held in pools.items():
                    assert held.prior is not None
                    alone[encoder].append(error(held.features, support, labels, query, truth, held.prior))
                if shot > 1:
                    losses = {one: judged(pools[one].features[support], labels, pools[one].prior)[1] for one in GENERAL}
                    best = min(losses, key=losses.__getitem__)
                else:
                    best = chosen_by_looks(seen[support], known).encoder
                names.append(best)
                picked.append(alone[best][-1])
            means = {encoder: 100 * float(np.mean(values)) for encoder, values in alone.items()}
            first = min(means, key=means.__getitem__)
            mark = " (saw these classes)" if (name, first) in SEEN else ""
            rows.append(
                {
                    "images": f"{name}, {way}-way {shot}-shot",
                    "auto": f"{100 * np.mean(picked):.1f}",
                    "best single": f"{means[first]:.1f} {first}{mark}",
                    "handwriting": f"{means['handwriting']:.1f}",
                    "photos": f"{means['photos']:.1f}",
                    "chosen": ", ".join(
                        f"{one} {names.count(one)}" for one in sorted(set(names), key=names.count)[::-1]
                    ),
                }
            )
            print(rows[-1], flush=True)
    return rows


def forecast_rows(chosen: argparse.Namespace) -> list[dict[str, str]]:
    rows = []
    for name, (encoder, each) in DEEP.items():
        held = pool(name, encoder, each, chosen)
        features, prior = held.features, held.prior
        assert prior is not None
        way = 5 if name == "miniimagenet" else 10
        for count in (5, 10):
            generator = np.random.default_rng(1)
            inside, widths, predicted, measured = [], [], [], []
            for number in range(chosen.forecasts):
                now, more, query = drawn(held, way, [count, count], generator)
                labels = torch.arange(way).repeat_interleave(count)
                curve = learning_curve(features[now], labels, adapt(prior, features[now], labels, way), 20, number)
                both, truth = torch.cat([now, more]), torch.arange(way).repeat_interleave(len(query) // way)
                found = error(features, both, labels.repeat(2), query, truth, prior)
                inside.append(curve.doubled.low <= found <= curve.doubled.high)
                widths.append(curve.doubled.high - curve.doubled.low)
                predicted.append(curve.doubled.error)
                measured.append(found)
            rows.append(
                {
                    "images": f"{name}, {way} classes of {count}, {encoder}",
                    "measured error with twice as many, %": f"{100 * np.mean(measured):.1f}",
                    "predicted, %": f"{100 * np.mean(predicted):.1f}",
                    "mean width of the interval, points": f"{100 * np.mean(widths):.1f}",
                    "measured lies in it, % of draws": f"{100 * np.mean(inside):.0f}",
                }
            )
            print(rows[-1], flush=True)
    return rows


def label_rows(chosen: argparse.Namespace) -> list[dict[str, str]]:
    rows = []
    for name in ("digits", "miniimagenet"):
        encoder, each = DEEP[name]
        held = pool(name, encoder, each, chosen)
        features, prior = held.features, held.prior
        assert prior is not None
        way, rounds = 10, 10
        curves = {"random": np.zeros(rounds + 1), "chosen": np.zeros(rounds + 1)}
        for number in range(20):
            first, unlabelled, query = drawn(held, way, [1, 50], np.random.default_rng(number))
            own, truth = (torch.arange(way).repeat_interleave(len(part) // way) for part in (unlabelled, query))
            for method, curve in curves.items():
                generator = np.random.default_rng(100 + number)
                support, labels, left = first, torch.arange(way), torch.arange(len(unlabelled))
                for step in range(rounds + 1):
                    curve[step] += error(features, support, labels, query, truth, prior) / 20
                    if method == "random":
                        picks = generator.permutation(len(left))[:5].tolist()
                    else:
                        picks = next_to_label(features[unlabelled[left]], features[support], 5)
                    support = torch.cat([support, unlabelled[left[picks]]])
                    labels = torch.cat([labels, own[left[picks]]])
                    kept = torch.ones(len(left), dtype=torch.bool)
                    kept[picks] = False
                    left = left[kept]
        lowest = np.minimum.accumulate(curves["chosen"])
        saved = []
        for step in range(2, rounds + 1):
            goal = curves["random"][step]
            reached = int(np.argmax(lowest <= goal)) if (lowest <= goal).any() else step
            saved.append(1 - reached / step)
        for labelled in (10, 25, 50):
            rows.append(
                {
                    "images": f"{name}, 10 classes of one image, {encoder}",
                    "labels added": f"{labelled}",
                    "error, labels at random": f"{100 * curves['random'][labelled // 5]:.1f}",
                    "error, labels as told": f"{100 * curves['chosen'][labelled // 5]:.1f}",
                    "labels saved, % (mean over 10 to 50)": f"{100 * np.mean(saved):.0f}",
                }
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--emoji", type=Path, help="folder of the two packages' images; left out without it")
    parser.add_argument("--features", type=Path, default=Path("runs/features"))
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--forecasts", type=int, default=100)
    parser.add_argument("--groups", nargs="+", default=["auto", "forecast", "labels"], help="of rows to measure")
    parser.add_argument("--json", type=Path, default=Path("experiments/results/own-images.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    about = (
        f"Errors in % on test images; {chosen.draws} draws for auto, {chosen.forecasts} for forecasts, 20 for labels. "
        "Intervals of 95 %. `handwriting` was trained on all of Omniglot, `photos` on every class of miniImageNet."
    )
    measures = {"auto": auto_rows, "forecast": forecast_rows, "labels": label_rows}
    groups = {name: measures[name](chosen) for name in chosen.groups}
    write_json(chosen.json, {"provenance": provenance(), "about": about, "groups": groups})


if __name__ == "__main__":
    main()
