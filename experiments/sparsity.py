"""Sparsity as a knob: lambda against few-shot error, active atoms and reconstruction, on validation characters.

A dictionary is learnt for each lambda as in configs/omniglot/sparse.yaml, and measured on the upright validation
characters of Omniglot. Writes a JSON and a figure.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from episodes import Episodes, EpisodeShape, ImageBank, to_float
from episodes.datasets import make_dataset
from metagvae.compute.device import Device
from metagvae.encoders.dictionary_learning import DictionaryLearner
from metagvae.encoders.sparse import SparseConfig, SparseEncoder
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import make_learner
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

PENALTIES = (0.15, 0.3, 0.6, 1.2, 2.4)
SHAPES = [(5, 1), (20, 1)]
SEEN = 6000  # training images that the first atoms, the mean and the principal directions are found on


def learnt(train: ImageBank, config: SparseConfig, updates: int = 150) -> SparseEncoder:
    """An encoder whose dictionary is learnt from a bank's patches."""
    generator = torch.Generator().manual_seed(0)
    some = to_float(train.images[torch.linspace(0, len(train) - 1, SEEN).long()])
    encoder = SparseEncoder(config).eval()
    first = encoder.patches.drawn(some, 8, generator)
    learner = DictionaryLearner(first, config.atoms, config.penalty, steps=30)
    for _ in range(updates):
        rows = torch.randint(len(train), (128,), generator=generator)
        learner.update(encoder.patches.drawn(to_float(train.images[rows]), 8, generator))
    encoder.set_dictionary(learner.dictionary)
    encoder.fit_features(some, generator)
    return encoder


@torch.no_grad()
def row(encoder: SparseEncoder, evaluator: Evaluator, bank: ImageBank) -> dict[str, float]:
    """Figures of a lambda: atoms in use by a patch that is not blank, squares left unexplained, errors."""
    images = to_float(bank.images[:: max(1, len(bank) // 100)])
    patches, codes = encoder.patches(images), encoder.codes(images).flatten(0, 2)
    inked = (codes != 0).any(1)
    left = (patches - codes @ encoder.dictionary).square().sum() / patches.square().sum()
    errors = evaluator.errors(make_learner("prototypes", encoder, 0), SHAPES)
    return {
        "lambda": encoder.config.penalty,
        "active atoms": round(float((codes[inked] != 0).sum(1).float().mean()), 2),
        "left unexplained, %": round(100 * float(left), 1),
        **{f"{way}w {shot}s": round(100 * float(e.mean()), 2) for (way, shot), e in zip(SHAPES, errors, strict=True)},
    }


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Error, active atoms and squares left against lambda, on one axis of lambda."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), dpi=120, layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (names, label) in zip(
        axes,
        (
            (["5w 1s", "20w 1s"], "error, %"),
            (["active atoms"], "active atoms"),
            (["left unexplained, %"], "left unexplained, %"),
        ),
        strict=True,
    ):
        for name in names:
            axis.plot([r["lambda"] for r in rows], [r[name] for r in rows], marker="o", label=name)
        axis.set_xscale("log")
        axis.set_xticks([r["lambda"] for r in rows], [f"{r['lambda']:g}" for r in rows])
        axis.minorticks_off()
        axis.set_xlabel("lambda")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--figure", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=1000)
    chosen = parser.parse_args()
    train = make_dataset("omniglot", rotations="classes").load("train")
    bank = make_dataset("omniglot").load("validation")
    drawn = Episodes(EpisodeShape(5, 1, 15), stream="validation")
    evaluator = Evaluator(bank, drawn, chosen.episodes, Device.choose("cpu", "float32"))
    usual = SparseConfig(steps=20, grid=5, cell=6, components=512)
    rows = [row(learnt(train, replace(usual, penalty=penalty)), evaluator, bank) for penalty in PENALTIES]
    about = (
        f"Omniglot's validation characters, upright, {chosen.episodes:,} episodes, prototypes; a dictionary learnt for "
        "each lambda."
    )
    write_json(chosen.json, {"provenance": provenance(), "about": about, "rows": rows})
    draw(rows, chosen.figure)


if __name__ == "__main__":
    main()
