"""Draws docs/images/generator.png: one test character, its named units moved one at a time by the shipped generator.

python experiments/generator_picture.py --root data/omniglot
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from episodes import to_float
from episodes.datasets import make_dataset
from metagvae import zoo
from metagvae.report.grids import write_grid
from metagvae.studies.control import named_units
from metagvae.vae.synthesis import Drawn, Synthesis

GENERATOR, IMAGE, TEMPERATURE = "generator-omniglot", 3446, 0.25
VALUES = [-3.0, -2.25, -1.5, -0.75, 0.0, 0.75, 1.5, 2.25, 3.0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=None)
    parser.add_argument("--image", type=int, default=IMAGE)
    chosen = parser.parse_args()
    bank = make_dataset("omniglot", root=chosen.root).load("test")
    vae = zoo.open(GENERATOR).vae()
    image = to_float(torch.as_tensor(bank.images[chosen.image : chosen.image + 1]))
    with torch.no_grad():
        start = vae.infer(image).mean[0]
    named = named_units(vae)
    drawn = Synthesis(vae, TEMPERATURE).traversals(start, list(named.values()), VALUES)
    shown = Drawn(drawn.images, drawn.latents, tuple(named))
    heads = tuple(f"{value:+.2f}" if value else "0" for value in VALUES)
    title = "One handwritten character, never seen in training: each row moves one unit"
    stem = Path(__file__).resolve().parent.parent / "docs" / "images" / "generator"
    for path in write_grid(shown, stem, vae.encoder.config.polarity, title, heads):
        if path.suffix == ".svg":
            path.unlink()


if __name__ == "__main__":
    main()
