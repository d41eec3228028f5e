"""Which images to label next: those that stand for most of what has no label yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from episodes import InputError
from metagvae.classifier.calibration import squared_distances
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.classifier.folders import fit_folder, read_pictures

MOST = 5_000  # images that are looked at; the distances between all of them are held


def next_to_label(unlabelled: Tensor, labelled: Tensor, count: int = 5) -> list[int]:
    """Rows of the features to label next, the first one first.

    Each choice is the image that most lowers the sum, over all images, of the squared distance to the nearest labelled
    one: the greedy algorithm for the facility location problem (Nemhauser, Wolsey & Fisher, Mathematical Programming
    1978), which finds at least 1 - 1/e of the lowering of the best choice. Images far from all others, mistakes mostly,
    lower it little.

    Args:
        unlabelled: ``[n, D]``.
        labelled: ``[m, D]``.
        count: how many, at most n.

    Raises:
        InputError: if there is nothing to choose from.
    """
    if not len(unlabelled) or not len(labelled) or count < 1:
        raise InputError(
            f"there must be images with and without labels, and one to choose; received {len(unlabelled)} without, "
            f"{len(labelled)} with, and {count} to choose."
        )
    between = squared_distances(unlabelled, unlabelled)
    nearest = squared_distances(unlabelled, labelled).amin(1)
    chosen: list[int] = []
    for _ in range(min(count, len(unlabelled))):
        gain = (nearest[:, None] - between).clamp(min=0).sum(0)
        gain[chosen] = -1.0
        chosen.append(int(gain.argmax()))
        nearest = torch.minimum(nearest, between[:, chosen[-1]])
    return chosen


def next_in_folder(
    examples: str | Path,
    pictures: str | Path,
    count: int = 5,
    encoder: str = "auto",
    told: Callable[[str], None] = print,
) -> list[tuple[str, str, float]]:
    """The files of a folder to label next, what each is taken for now, and how probably.

    Args:
        examples: a folder with one folder of labelled images per class.
        pictures: a folder of images without labels.
        told: gets sentences on what was left aside.

    Raises:
        InputError: if a folder holds no image that can be read, or more than `MOST`.
    """
    classifier = FewShotClassifier(encoder)
    for sentence in fit_folder(classifier, examples).told:
        told(sentence)
    config = classifier.encoder_.config
    images, files, aside = read_pictures(pictures, config.channels, config.size, MOST)
    for sentence in aside:
        told(sentence)
    features = classifier.embed(images)
    rows = next_to_label(features, torch.from_numpy(classifier.support_), count)
    answers = classifier.predict_proba(images)
    return [(files[row], str(classifier.classes_[answers[row].argmax()]), float(answers[row].max())) for row in rows]
