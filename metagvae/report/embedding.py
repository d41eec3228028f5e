"""A map of how the encoder lays out test classes: their features in two dimensions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from episodes import to_float
from metagvae.encoders.norm import norm_policy
from metagvae.evaluation.embedding import embed_bank
from metagvae.report.images import chart
from metagvae.report.material import Material
from metagvae.report.section import LeftOut, readable

CLASSES, PER_CLASS = 12, 20
MARKERS = "os^Dv<>pPX*h"
COLOURS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b"),
    *("#e377c2", "#7f7f7f", "#bcbd22", "#17becf", "#111111", "#0000cc"),
)


def embedding_content(run: Material) -> dict[str, Any]:
    """For the template: a t-SNE map of some test classes, one picture of each drawn where the class lies.

    Raises:
        LeftOut: if a picture's feature depends on the episode it is in, or there is too little to map.
    """
    from matplotlib.figure import Figure
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage
    from sklearn.manifold import TSNE

    policy = norm_policy(run.encoder)
    if policy not in ("running", "group", "none"):
        raise LeftOut(
            f"Under the norm policy '{policy}' an image has another feature in each episode, so no one place."
        )
    bank = run.bank.to("cpu")
    chosen = torch.linspace(0, bank.num_classes - 1, min(CLASSES, bank.num_classes)).long().unique()
    part = bank.subset(chosen)
    spans = part.offsets.tolist()
    rows = torch.cat([torch.arange(a, min(a + PER_CLASS, b)) for a, b in pairwise(spans)])
    if len(rows) < 10:
        raise LeftOut(f"There are only {len(rows)} images to map.")
    features = embed_bank(run.encoder, part, run.evaluator.device).cpu()[rows].double().numpy()
    labels = part.labels[rows].numpy()
    perplexity = min(20.0, (len(rows) - 1) / 4)
    places = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(features)

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    for number in range(len(chosen)):
        own = places[labels == number]
        axes.scatter(
            own[:, 0], own[:, 1], s=22, color=COLOURS[number], marker=MARKERS[number], alpha=0.75, linewidths=0
        )
    for number in range(len(chosen)):
        own = places[labels == number]
        first = rows[np.flatnonzero(labels == number)[0]]
        picture = to_float(part.images[first]).permute(1, 2, 0).numpy()
        picture = picture if picture.shape[-1] == 3 else picture.mean(-1)
        small = OffsetImage(picture, zoom=20 / picture.shape[0], cmap="gray", interpolation="nearest")
        box = {"edgecolor": COLOURS[number], "linewidth": 1.6, "boxstyle": "round,pad=0.1"}
        # above its marks, so that none is hidden
        above = (float(np.median(own[:, 0])), float(np.quantile(own[:, 1], 0.8)))
        note = AnnotationBbox(small, above, (0, 15), boxcoords="offset points", pad=0.1, bboxprops=box)
        axes.add_artist(note)
    nearest = _agreement(features, labels)
    alt = (
        f"A map of {len(rows)} images of {len(chosen)} classes, a mark per image and a small image above each "
        f"class; {nearest:.0f} % of the images have one of their own class as nearest neighbour."
    )
    return {
        "image": chart(figure, alt),
        "classes": [readable(part.class_names[number], 40) for number in range(len(chosen))],
        "pictures": len(rows),
        "total": bank.num_classes,
        "features": "+".join(run.encoder.features),
        "size": features.shape[1],
        "nearest": f"{nearest:.0f}",
        "adapted": not run.learner.any_way,
    }


def _agreement(features: np.ndarray, labels: np.ndarray) -> float:
    """Percentage of pictures whose nearest neighbour is of their own class."""
    squares = (features**2).sum(1)
    distances = squares[:, None] + squares - 2 * features @ features.T
    np.fill_diagonal(distances, np.inf)
    return 100 * float((labels[distances.argmin(1)] == labels).mean())
