"""The classifier on digits as they come in files: scikit-learn's own 8 x 8 arrays and MNIST's, nothing prepared.

A user's five lines, 20 times: a few images of each digit to `fit`, others to `predict`. Beside each shipped encoder the
nearest class mean of the arrays' own numbers, and of 64 principal components of Omniglot's training characters.

python experiments/plain_input.py --json experiments/results/plain-input.json
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from episodes.datasets import make_dataset
from metagvae import FewShotClassifier
from metagvae.classifier.estimator import DEFAULT_ENCODER
from metagvae.classifier.inputs import collect
from metagvae.encoders.controls import PCA
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.zoo import shipped_encoders

DRAWS = 20
QUERIES = 100  # of each digit, at most
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]  # numbers of support and query images to labels
Method = Callable[[np.ndarray, np.ndarray], Predict]  # given all images and labels


def sources() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, images and labels: float ``[1797, 8, 8]`` of 0 to 16, and uint8 ``[10000, 28, 28]`` of 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    yield "digits 8 x 8", digits.images, digits.target
    bank = make_dataset("mnist").load("test")  # its own 28 x 28: the numbers of the file
    yield "MNIST", bank.images[:, 0].numpy(), bank.labels.numpy()


class Remembering(FewShotClassifier):
    """The classifier of the numbers of images, each of which was embedded once: the same answers in less time."""

    def remember(self, images: np.ndarray, labels: np.ndarray) -> Remembering:
        self.table = torch.from_numpy(FewShotClassifier(self.encoder).fit(images, labels).support_)
        return self

    def _embed(self, X: Any, first: bool) -> torch.Tensor:
        return self.table[torch.from_numpy(X)]


def draw(labels: np.ndarray, shot: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the images to fit on, ``shot`` per class, and of those to predict, as many of each class."""
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    queries = min(QUERIES, min(map(len, orders)) - shot)
    support, query = zip(*((order[:shot], order[shot : shot + queries]) for order in orders), strict=True)
    return np.concatenate(support), np.concatenate(query)


def nearest_mean(embed: Callable[[np.ndarray], np.ndarray]) -> Method:
    """The class whose mean feature is nearest."""

    def ready(images: np.ndarray, every: np.ndarray) -> Predict:
        rows = embed(images)

        def predict(support: np.ndarray, query: np.ndarray) -> np.ndarray:
            classes, own = np.unique(every), every[support]
            means = np.stack([rows[support[own == label]].mean(0) for label in classes])
            return classes[((rows[query][:, None] - means) ** 2).sum(-1).argmin(1)]

        return predict

    return ready


def classifier(name: str) -> Method:
    """`FewShotClassifier` with an encoder; its first draw is done again with every image embedded anew."""

    def ready(images: np.ndarray, every: np.ndarray) -> Predict:
        quick = Remembering(name).remember(images, every)
        support, query = draw(every, 1, 0)
        plain = FewShotClassifier(name).fit(images[support], every[support]).predict(images[query])
        assert (plain == quick.fit(support, every[support]).predict(query)).all()
        return lambda support, query: quick.fit(support, every[support]).predict(query)

    return ready


def methods() -> Iterator[tuple[str, Method]]:
    def pixels(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1).astype(np.float64)

    yield "raw pixels", nearest_mean(pixels)
    pca = PCA(make_dataset("omniglot").load("train"))

    def components(images: np.ndarray) -> np.ndarray:
        enlarged = collect(images.astype(np.float32) / (16 if images.shape[-1] == 8 else 255), 1, 28).images
        return pca(enlarged).numpy()

    yield "PCA", nearest_mean(components)
    for name in sorted(shipped_encoders(), key=lambda name: name == DEFAULT_ENCODER):
        yield f"{name} (default)" if name == DEFAULT_ENCODER else name, classifier(name)


def measure(predict: Predict, labels: np.ndarray, shot: int, draws: int) -> np.ndarray:
    """Error in % of each draw."""
    errors = []
    for seed in range(draws):
        support, query = draw(labels, shot, seed)
        errors.append(100 * float(np.mean(predict(support, query) != labels[query])))
    return np.array(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, rows, every = list(sources()), [], {}
    for name, method in methods():
        row: dict[str, Any] = {"encoder": name}
        for source, images, labels in data:
            predict = method(images, labels)
            for shot in (1, 5):
                errors = measure(predict, labels, shot, arguments.draws)
                half = 1.96 * errors.std(ddof=1) / math.sqrt(len(errors))
                row[f"{source}, {shot} of each"] = f"{errors.mean():.1f} ± {half:.1f}"
                every[f"{name}, {source}, {shot} of each"] = errors.round(3).tolist()
        rows.append(row)
        print("  ".join(row.values()), flush=True)
    if arguments.json:
        about = (
            f"Error in %, ± the 95 % interval over {arguments.draws} draws of the images to fit on, the same for each "
            f"row; up to {QUERIES} images of each class to predict, of all of MNIST's test images."
        )
        write_json(arguments.json, {"provenance": provenance(), "about": about, "rows": rows, "per_draw": every})


if __name__ == "__main__":
    main()
