"""Check of a folder of examples: its error, what more images would bring, and which examples look wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import InputError
from metagvae.classifier.calibration import gaussian_logits, left_out
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.classifier.folders import Examples, classes_trained_on, fit_folder
from metagvae.studies.learning_curve import LearningCurve, learning_curve

MOST = 5_000  # images; the distances between all of them are held
ALIKE = 0.998  # the correlation of two images' grey values at which they are called copies
SURE = 0.9  # the probability of another class at which a label is suspected
_GREY = 24  # pixels a side, at which copies are compared


@dataclass(frozen=True)
class Suspect:
    """An example that the others put into another class.

    Attributes:
        row: its number.
        taken: the number of that class.
        probability: of it.
    """

    row: int
    taken: int
    probability: float


@dataclass(frozen=True)
class FitCheck:
    """Findings on a folder of examples, from its own images alone.

    Attributes:
        classifier: fitted on all of it.
        examples: its images, labels and files.
        curve: error now, over images a class, and for twice as many.
        answers: int64 ``[n]``, the class that each example is put into by the others.
        suspects: labels that may be wrong, the likeliest first.
        copies: pairs of examples that show the same.
        seen: those of the classes that the encoder was trained on, by name.
    """

    classifier: FewShotClassifier
    examples: Examples
    curve: LearningCurve
    answers: Tensor
    suspects: list[Suspect]
    copies: list[tuple[int, int]]
    seen: list[str]

    @property
    def classes(self) -> list[str]:
        """Their names."""
        return [str(name) for name in self.classifier.classes_]

    @cached_property
    def confusions(self) -> list[tuple[int, int, list[int]]]:
        """Pairs (class, taken for) with the examples so taken, the most frequent first."""
        found: dict[tuple[int, int], list[int]] = {}
        pairs = zip(self.classifier.labels_.tolist(), self.answers.tolist(), strict=True)
        for row, (truth, answer) in enumerate(pairs):
            if answer != truth:
                found.setdefault((truth, answer), []).append(row)
        return [(*pair, found[pair]) for pair in sorted(found, key=lambda pair: (-len(found[pair]), pair))]

    def sentences(self) -> list[str]:
        """The check in words."""
        now, after = self.curve.now, self.curve.doubled
        said = [self.classifier.choice_.sentence()] if hasattr(self.classifier, "choice_") else []
        said += [
            f"error with {now.shot} images a class: {_percent(now.error)} [{_percent(now.low)}, {_percent(now.high)}]",
            f"predicted with {after.shot}: {_percent(after.error)} [{_percent(after.low)}, {_percent(after.high)}]",
        ]
        if self.seen:
            some = f"{len(self.seen)} of these classes, {self.seen[0]!r} among them"
            said.append(f"these figures are too low: the encoder was trained on {some}")
        for truth, taken, rows in self.confusions[:5]:
            said.append(f"{self.classes[truth]} taken for {self.classes[taken]}: {len(rows)}")
        files = self.examples.files
        said += [
            f"is its label right? {files[one.row]}: {_percent(one.probability)} {self.classes[one.taken]}"
            for one in self.suspects
        ]
        return said + [f"the same image: {files[one]} and {files[two]}" for one, two in self.copies]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def fit_check(folder: str | Path, encoder: str = "auto", device: str = "auto") -> FitCheck:
    """Checks a folder of examples, one folder per class.

    Raises:
        InputError: if the folder cannot be read, holds fewer than two classes of two images, or more than `MOST`.
    """
    classifier = FewShotClassifier(encoder, device=device)
    examples = fit_folder(classifier, folder)
    if len(examples.labels) > MOST:
        raise InputError(f"{folder} holds {len(examples.labels):,} images; fit-check looks at {MOST:,} at most.")
    features, labels = torch.from_numpy(classifier.support_), torch.from_numpy(classifier.labels_)
    curve = learning_curve(features, labels, classifier.calibration_)
    distances, counts, own = left_out(features, labels, len(classifier.classes_))
    logits = gaussian_logits(distances, counts, classifier.calibration_)
    return FitCheck(
        classifier,
        examples,
        curve,
        logits.argmax(1),
        suspects(logits, own),
        copies(examples.images.images),
        classes_trained_on(str(classifier.source), classifier.classes_),
    )


def suspects(logits: Tensor, labels: Tensor) -> list[Suspect]:
    """Examples that the others are `SURE` to be of another class.

    Args:
        logits: ``[n, N]`` of each by the others.
        labels: int64 ``[n]``.
    """
    probabilities = logits.softmax(1)
    best = probabilities.max(1)
    rows = ((best.indices != labels) & (best.values > SURE)).nonzero().flatten().tolist()
    found = [Suspect(row, int(best.indices[row]), float(best.values[row])) for row in rows]
    return sorted(found, key=lambda one: -one.probability)


def copies(images: Tensor) -> list[tuple[int, int]]:
    """Pairs of images ``[n, C, H, W]`` that show the same, whatever their brightness, size or compression."""
    small = F.interpolate(images.mean(1, keepdim=True), (_GREY, _GREY), mode="bilinear", antialias=True).flatten(1)
    small = F.normalize(small - small.mean(1, keepdim=True), dim=1)
    pairs: list[Sequence[int]] = (small @ small.T > ALIKE).triu(1).nonzero().tolist()
    return [(one, two) for one, two in pairs]
