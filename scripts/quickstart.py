"""The whole main job on letters drawn from fonts, in under five minutes on two cores, nothing downloaded.

Pretrains a plain and a Guided-VAE, trains a prototypical network on the guided one's encoder, measures both and
the controls on scripts never seen in training and on handwritten digits, and leaves a folder with the runs, the
result table, and pictures.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from episodes import InputError
from episodes.datasets import make_dataset
from metagvae.cli import main as metagvae
from metagvae.encoders.controls import controls_of
from metagvae.report.figures import error_bars
from metagvae.studies.compare import compare
from metagvae.studies.comparison import Comparison
from metagvae.studies.protocol import Protocol

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str) -> None:
    print(f"\n$ metagvae {' '.join(arguments)}", flush=True)
    status = metagvae(list(arguments))
    if status:
        sys.exit(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", default="runs/quickstart", help="where the runs go; an older quickstart there is replaced"
    )
    parser.add_argument("--steps", type=int, default=None, help="training steps of each part (default: the configs')")
    parser.add_argument("--episodes", type=int, default=600, help="episodes that each row of the table is measured on")
    chosen = parser.parse_args()
    began = time.perf_counter()
    folder = Path(chosen.folder)
    if folder.exists():
        if any(folder.iterdir()) and not (folder / "quickstart").exists():
            raise InputError(f"{folder} holds something other than a quickstart; give another --folder.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / "quickstart").write_text("made by scripts/quickstart.py\n")
    configs = ROOT / "configs" / "glyphs"
    steps = ["--optim.steps", str(chosen.steps)] if chosen.steps else []
    vae, guided, protonet = (str(folder / name) for name in ("vae", "guided-vae", "protonet"))
    run("pretrain", "--config", str(configs / "vae.yaml"), "--run.folder", vae, *steps)
    run("pretrain", "--config", str(configs / "guided-vae.yaml"), "--run.folder", guided, *steps)
    run(
        "train",
        "--config",
        str(configs / "protonet.yaml"),
        "--encoder.source",
        guided,
        "--run.folder",
        protonet,
        *steps,
    )

    glyphs, digits = make_dataset("glyphs"), make_dataset("digits")
    print("\nmeasuring on scripts never seen, and on handwritten digits", flush=True)
    results = []
    methods: dict[str, Any] = {}
    for data in (glyphs, digits):
        comparison = compare(
            data,
            encoders=[*controls_of(data.load("test")), vae, guided],
            runs=[protonet],
            protocol=Protocol(ways=[5], shots=[1, 5], episodes=chosen.episodes),
            fit_data=glyphs,
        )
        results += comparison.single
        methods.update(comparison.methods)
    names = {
        "vae": "plain VAE (frozen)",
        "guided-vae": "Guided-VAE (frozen)",
        "protonet": "prototypical network on Guided-VAE",
        "pixels": "pixels",
        "pca": "PCA",
        "random": "random encoder",
    }
    for result in results:
        result.method = names[result.method]
    whole = Comparison.of(results, {names[method]: about for method, about in methods.items()})
    print("\n" + whole.table())
    (folder / "table.txt").write_text(whole.table() + "\n")
    whole.save(folder / "results.json")
    error_bars(whole.results, folder / "figures" / "errors.png")
    print(f"\n{time.perf_counter() - began:.0f} s on {torch.get_num_threads()} threads. In {folder}:")
    print("table.txt, results.json, figures/errors.png; in each run's figures/ curves, reconstructions, traversal.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        sys.exit(2)
