"""Coverage and size of 90 % sets of labels on data sets that nothing was tuned on, with MAPIE's beside them.

Five classes are known and as many are strangers; each picture is embedded once. MAPIE's are its cross-conformal sets
(the score 1 - p) of the same classifier within the support, which knows no "none of these" and needs two pictures.

python experiments/sets.py --json experiments/results/sets.json
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mapie.classification import CrossConformalClassifier
from plain_input import Remembering
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from episodes.datasets import make_dataset
from metagvae.classifier.calibration import Calibration, gaussian_logits, squared_distances
from metagvae.classifier.label_sets import sets_of
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

WAY, QUERIES, COVERAGE = 5, 10, 0.9
TOGETHER, ALONE, MIXED = "asked together", "asked one by one", "asked together with as many strangers"
Source = tuple[str, str, np.ndarray, np.ndarray]


def sources(most: int = 40) -> Iterator[Source]:
    """Name, encoder, images and labels; at most so many images of a class."""
    digits = load_digits()
    yield "digits 8 x 8", "handwriting", digits.images, digits.target
    for name, encoder, made in (
        ("MNIST", "handwriting", make_dataset("mnist")),
        ("Omniglot", "warp-protonet-omniglot", make_dataset("omniglot")),
        ("miniImageNet", "photos", make_dataset("miniimagenet")),
    ):
        bank = made.load("test")
        rows = torch.cat([torch.arange(int(o), min(int(o) + most, int(e))) for o, e in _spans(bank)])
        images = bank.images[rows].permute(0, 2, 3, 1).squeeze(-1).numpy()
        yield name, encoder, images, bank.labels[rows].numpy()


def _spans(bank: Any) -> Iterator[tuple[int, int]]:
    return zip(bank.offsets[:-1].tolist(), bank.offsets[1:].tolist(), strict=True)


class Head(ClassifierMixin, BaseEstimator):
    """The classifier's head on features, for MAPIE."""

    def __init__(self, calibration: Calibration | None = None) -> None:
        self.calibration = calibration

    def fit(self, X: np.ndarray, y: np.ndarray) -> Head:
        self.classes_, at = np.unique(y, return_inverse=True)
        self.means_ = torch.from_numpy(np.stack([X[at == c].mean(0) for c in range(len(self.classes_))]))
        self.counts_ = torch.bincount(torch.from_numpy(at))
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        assert self.calibration is not None
        distances = squared_distances(torch.from_numpy(X), self.means_)
        return gaussian_logits(distances, self.counts_, self.calibration).softmax(1).numpy()

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self.classes_[self.predict_proba(X).argmax(1)])


def mapie_sets(classifier: Remembering, asked: Tensor, shot: int) -> np.ndarray:
    """Bool ``[n, N]``."""
    folds = StratifiedKFold(shot)
    theirs = CrossConformalClassifier(Head(classifier.calibration_), confidence_level=COVERAGE, cv=folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit_conformalize(classifier.support_, classifier.labels_)
        return np.asarray(theirs.predict_set(asked.numpy())[1][:, :, 0])


def draw(labels: np.ndarray, shot: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the images to fit on, of further ones of their classes, and of strangers."""
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(np.unique(labels))[: 2 * WAY]
    rows = [generator.permutation(np.flatnonzero(labels == label))[: shot + QUERIES] for label in chosen]
    return (
        np.concatenate([row[:shot] for row in rows[:WAY]]),
        np.concatenate([row[shot:] for row in rows[:WAY]]),
        np.concatenate([row[shot:] for row in rows[WAY:]]),
    )


def measure(classifier: Remembering, labels: np.ndarray, shot: int, asked: str, tasks: int) -> dict[str, Any]:
    """Means over tasks, in %, sizes and AUROC."""
    found = []
    for seed in range(tasks):
        support, query, strange = draw(labels, shot, seed)
        classifier.fit(support, labels[support])
        genuine, strangers = classifier.table[query], classifier.table[strange]
        further = None
        if shot == 1 and asked != ALONE:
            further = torch.cat([genuine, strangers]) if asked == MIXED else genuine
        sets = sets_of(classifier, further)
        inside, outside = sets.members(genuine, COVERAGE).numpy(), sets.members(strangers, COVERAGE).numpy()
        at = np.arange(len(query)), np.searchsorted(classifier.classes_, labels[query])
        novelty = classifier.novelty(np.concatenate([query, strange]))
        row = [inside[at].mean(), inside[:, :-1].sum(1).mean(), inside[:, -1].mean(), outside[:, -1].mean()]
        row.append(roc_auc_score(np.repeat([0, 1], [len(query), len(strange)]), novelty))
        if shot > 1:
            theirs = mapie_sets(classifier, genuine, shot)
            row += [theirs[at].mean(), theirs.sum(1).mean()]
        found.append(row)
    means = np.mean(found, 0)
    error = 1.96 * np.std([row[0] for row in found], ddof=1) / len(found) ** 0.5
    return {
        "coverage, %": f"{100 * means[0]:.1f} ± {100 * error:.1f}",
        "labels in a set": f"{means[1]:.2f}",
        "MAPIE's coverage, %": f"{100 * means[5]:.1f}" if shot > 1 else "–",
        "MAPIE's labels in a set": f"{means[6]:.2f}" if shot > 1 else "–",
        "strangers whose set has “none of these”, %": f"{100 * means[3]:.1f}",
        "genuine whose set has it, %": f"{100 * means[2]:.1f}",
        "AUROC": f"{means[4]:.3f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, encoder, images, labels in sources():
        classifier = Remembering(encoder).remember(images, labels)
        for shot, asked in ((1, TOGETHER), (1, MIXED), (1, ALONE), (3, ALONE), (5, ALONE)):
            values = measure(classifier, labels, shot, asked, arguments.tasks)
            rows.append({"images": name, "encoder": encoder, "of each": shot, "queries": asked, **values})
            print("  ".join(map(str, rows[-1].values())), flush=True)
    if arguments.json:
        about = (
            f"Sets of coverage {COVERAGE:.0%}; {WAY} classes known, {WAY} strangers, {QUERIES} further images of each; "
            f"means over {arguments.tasks} tasks, ± the 95 % interval over them."
        )
        write_json(arguments.json, {"provenance": provenance(), "about": about, "rows": rows})


if __name__ == "__main__":
    main()
