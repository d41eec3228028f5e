"""Draws docs/images/one-shot.png: a 20-way 1-shot episode of Omniglot's test characters with its predictions.

python experiments/readme_picture.py --root data/omniglot
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle

from episodes import Episodes, EpisodeSampler, EpisodeShape, make_batch
from episodes.datasets import make_dataset
from metagvae import load_encoder

WAY, QUERIES = 20, 4
ENCODER = "warp-protonet-omniglot"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=None)
    root = parser.parse_args().root
    bank = make_dataset("omniglot", root=root).load("test")
    episodes = Episodes(EpisodeShape(WAY, 1, QUERIES), seed=0, stream="test")
    batch = make_batch(bank, EpisodeSampler(bank, episodes).span(0, 1))
    encoder = load_encoder(ENCODER).eval()
    images = batch.images[0].float()  # [way, 1 + queries, 1, H, W], in [0, 1]
    with torch.no_grad():
        features = encoder(images.flatten(0, 1)).unflatten(0, (WAY, 1 + QUERIES))
    predicted = torch.cdist(features[:, 1:].flatten(0, 1), features[:, 0]).argmin(1).view(WAY, QUERIES)

    figure, axes = plt.subplots(1 + QUERIES, WAY, figsize=(WAY * 0.5, (1 + QUERIES) * 0.5))
    for way in range(WAY):
        for row in range(1 + QUERIES):
            axis = axes[row, way]
            axis.imshow(1 - images[way, row, 0], cmap="gray", vmin=0, vmax=1, interpolation="lanczos")
            axis.axis("off")
            right = row == 0 or int(predicted[way, row - 1]) == way
            colour = "#303f9f" if row == 0 else "#2e7d32" if right else "#c62828"
            axis.add_patch(Rectangle((0, 0), 1, 1, transform=axis.transAxes, fill=False, edgecolor=colour, linewidth=2))
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99, 0.08, 0.08)
    figure.savefig(Path(__file__).resolve().parent.parent / "docs" / "images" / "one-shot.png", dpi=160)
    wrong = int((predicted != torch.arange(WAY)[:, None]).sum())
    print(f"{wrong} of {WAY * QUERIES} queries wrong")


if __name__ == "__main__":
    main()
