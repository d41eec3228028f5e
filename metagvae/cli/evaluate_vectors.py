"""`metagvae evaluate-vectors`: few-shot error of ready feature vectors, from any source."""

from __future__ import annotations

from dataclasses import replace

from episodes.paths import expanded
from metagvae.cli.outputs import check_writable, say


def evaluate_vectors(
    file: str,
    way: list[int] | None = None,
    shot: list[int] | None = None,
    query: int = 15,
    episodes: int = 1000,
    seed: int = 0,
    json: str | None = None,
) -> None:
    """Few-shot error of feature vectors of text, sound or images, by distance and by angle, on the same episodes.

    Args:
        file: an .npz with the arrays vectors [n, D] and labels [n], or a table (csv) with a column label and one column
            for each number.
        way: classes per episode, one or more numbers; leave out for 5.
        shot: support vectors per class, one or more numbers; leave out for 1 and 5.
        query: query vectors per class.
        episodes: how many episodes per shape.
        seed: of the episodes; the same seed gives the same episodes everywhere.
        json: file to write results to.
    """
    from episodes.untrusted.vector_tables import read_vectors
    from metagvae.evaluation.vectors import evaluate_vectors as measure
    from metagvae.studies.comparison import Comparison

    path = expanded(file)
    check_writable(json, inputs=[file])
    vectors, labels = read_vectors(path)
    shapes = list(dict.fromkeys((w, s) for w in way or (5,) for s in shot or (1, 5)))
    results = []
    for method, normalise in (("distance", 0.0), ("angle", 1.0)):
        results += measure(
            vectors, labels, shapes, query=query, episodes=episodes, seed=seed, normalise=normalise, name=method
        )
    comparison = Comparison.of([replace(result, dataset=path.name) for result in results])
    if json:
        comparison.save(expanded(json))
    say(comparison.table())
