"""Few-shot error of ready feature vectors, with the intervals that images get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from episodes import Episodes, EpisodeShape, ImageBank, InputError
from metagvae.compute.device import Device
from metagvae.evaluation.evaluator import Evaluator
from metagvae.evaluation.results import Result
from metagvae.learners import Learner, PrototypicalNetwork


class _VectorEvaluator(Evaluator):
    def __init__(self, vectors: Tensor, bank: ImageBank, episodes: Episodes, count: int) -> None:
        super().__init__(bank, episodes, count, Device.choose("cpu", "float32"))
        self._vectors = vectors

    def _features(self, learner: Learner) -> Tensor:
        return self._vectors.unsqueeze(0)


def evaluate_vectors(
    vectors: Any,
    labels: Any,
    shapes: Sequence[tuple[int, int]] = ((5, 1), (5, 5)),
    *,
    query: int = 15,
    episodes: int = 1000,
    seed: int = 0,
    normalise: float = 0.0,
    name: str = "vectors",
) -> list[Result]:
    """The error of the nearest prototype on vectors, over episodes and over classes.

    Args:
        vectors: ``[n, D]``, finite numbers.
        labels: ``[n]``, the class of each.
        shapes: (way, shot) of the episodes.
        query: vectors asked of each class.
        episodes: how many of each shape.
        seed: of the episodes.
        normalise: see `metagvae.learners.PrototypicalNetwork`; 1 for embeddings compared by their angle.
        name: of the vectors, in the results.

    Raises:
        InputError: if the vectors and labels do not fit each other, or cannot give such episodes.

    Example:
        >>> import numpy as np
        >>> from metagvae.evaluation.vectors import evaluate_vectors
        >>> centres = np.eye(6).repeat(20, 0)
        >>> vectors = centres + 0.1 * np.random.default_rng(0).normal(size=centres.shape)
        >>> (result,) = evaluate_vectors(vectors, np.arange(6).repeat(20), [(5, 1)], episodes=50)
        >>> result.error
        0.0
    """
    table = np.ascontiguousarray(np.asarray(vectors, dtype=np.float32))
    named = np.asarray(labels)
    if table.ndim != 2 or not table.size or named.shape != table.shape[:1]:
        raise InputError(
            f"expected vectors [n, D] and labels [n]; received {list(np.shape(vectors))} and {list(named.shape)}."
        )
    if not np.isfinite(table).all():
        raise InputError("the vectors hold NaN or infinity; replace these numbers first.")
    classes, own = np.unique(named, return_inverse=True)
    order = np.argsort(own, kind="stable")
    rows = torch.from_numpy(table[order])
    offsets = torch.from_numpy(np.concatenate([[0], np.bincount(own).cumsum()]))
    # the vectors' bytes stand for pictures, so that the hash in a result is theirs
    held = rows.view(torch.uint8).view(len(rows), 1, rows.shape[1], 4)
    bank = ImageBank(held, offsets, tuple(map(str, classes.tolist())), dataset=name, split="test")
    drawn = Episodes(EpisodeShape(*shapes[0], query), seed=seed, stream="test")
    evaluator = _VectorEvaluator(rows, bank, drawn, episodes)
    for way, shot in shapes:
        evaluator.check(way, shot)
    found = evaluator.measure(name, PrototypicalNetwork(nn.Identity(), normalise=normalise), list(shapes))
    return [replace(result, split_hash=bank.pixels) for result in found]
