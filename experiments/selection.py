"""Choosing without labels against choosing blindly: pools of ten pretraining runs on glyphs, and each criterion's pick.

Trains what is not under runs/ yet, a few seconds a run, then measures every run's 5-way 1-shot error on test characters
(nearest prototypes) and what `metagvae select` says of it on validation characters. Regret is the pick's error less the
best run's; that of a random pick is the mean over the pool.

python experiments/selection.py --json experiments/results/selection.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from episodes import AugmentConfig, Episodes, EpisodeShape
from episodes.datasets import make_dataset
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import DataConfig, EncoderSection, PretrainConfig, VAESection
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import make_learner
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.studies.selection import CRITERIA, Selection, select
from metagvae.training.pretraining import pretrain

STEPS, RESAMPLES = 500, 2000
BETAS = (0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0)
PCA = {"name": "deformable_pca", "transforms": ["rotation", "scale"], "weight": 60.0}
MIXED: list[tuple[float, list[dict[str, Any]]]] = [
    *((beta, []) for beta in (0.5, 1.0, 2.0, 4.0)),
    *((beta, [PCA]) for beta in (0.5, 1.0, 4.0)),
    *((beta, [{"name": "warp_pairs"}]) for beta in (0.5, 1.0, 4.0)),
]
# by pool: for each of its ten runs the seed, the weight of the KL and the guidance
POOLS = {
    "seeds of one recipe": [(seed, 1.0, []) for seed in range(10)],
    "a sweep of beta": [(100, beta, []) for beta in BETAS],
    "mixed guidances": [(200, beta, guidance) for beta, guidance in MIXED],
}


def trained(folder: Path, seed: int, beta: float, guidance: list[dict[str, Any]]) -> str:
    """The folder of a run, trained if it is not there."""
    warps = guidance and guidance[0]["name"] == "warp_pairs"
    if not (folder / "vae.safetensors").exists():
        pretrain(
            PretrainConfig(
                data=DataConfig("glyphs"),
                augment=AugmentConfig(rotation=20, scale=0.2, shear=0.1, translation=0.1) if warps else AugmentConfig(),
                encoder=EncoderSection(backbone="patches", width=32, latent=24),
                vae=VAESection(beta=beta, decoder="patches", guidance=guidance),
                batch=32,
                views=2 if warps else 1,
                optim=OptimSection(steps=STEPS, lr=0.003, schedule="cosine"),
                run=RunSection(folder=str(folder), seed=seed, device="cpu", resume="auto"),
            )
        )
    return str(folder)


def measured(runs: list[str]) -> np.ndarray:
    """5-way 1-shot error in % of each run on the same test episodes."""
    bank = make_dataset("glyphs").load("test")
    evaluator = Evaluator(bank, Episodes(EpisodeShape(5, 1, 15), 0, "test"), 1000, Device.choose("cpu"))
    learners = [make_learner("prototypes", zoo.open(run).encoder(), 5) for run in runs]
    return np.array([100 * float(evaluator.errors(learner, [(5, 1)])[0].mean()) for learner in learners])


def rows_of(pool: str, errors: np.ndarray, found: Selection) -> list[dict[str, str]]:
    """A row for each criterion: its rank correlation with being good, and its regret, with intervals over runs."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(errors), size=len(errors)) for _ in range(RESAMPLES)]
    blind = errors.mean() - errors.min()
    rows = []
    for by, (name, more) in CRITERIA.items():
        good = np.array(found.values[by]) * (1 if more else -1)
        ranks = [spearmanr(good[d], -errors[d])[0] for d in draws if np.ptp(good[d]) > 0 and np.ptp(errors[d]) > 0]
        low, high = np.percentile(ranks, [2.5, 97.5])
        regrets = [errors[d][good[d].argmax()] - errors[d].min() for d in draws]
        least, most = np.percentile(regrets, [2.5, 97.5])
        regret = errors[good.argmax()] - errors.min()
        rows.append(
            {
                "pool": pool,
                "criterion": name,
                "rank correlation": f"{spearmanr(good, -errors)[0]:+.2f} [{low:+.2f}, {high:+.2f}]",
                "regret, points": f"{regret:.1f} [{least:.1f}, {most:.1f}]",
                "of a random pick": f"{blind:.1f}",
                "best and worst run, %": f"{errors.min():.1f}, {errors.max():.1f}",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--pools", nargs="+", default=list(POOLS))
    parser.add_argument("--train_only", action="store_true", help="train what is missing and measure nothing")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, str]] = []
    pools: dict[str, Any] = {}
    validation = make_dataset("glyphs").load("validation")
    for number, pool in enumerate(arguments.pools):
        runs = [
            trained(arguments.folder / f"selection-{pool.replace(' ', '-')}-{place}", *spec)
            for place, spec in enumerate(POOLS[pool])
        ]
        if arguments.train_only:
            continue
        errors, found = measured(runs), select(runs, validation)
        rows += rows_of(pool, errors, found)
        content = {key: value for key, value in found.content().items() if key not in ("provenance", "rows", "runs")}
        pools[pool] = {"errors": errors.round(3).tolist(), **content}
        print(number, pool, found.table(), errors.round(1), *rows[-len(CRITERIA) :], sep="\n", flush=True)
    if arguments.json:
        about = (
            f"Ten runs a pool, {STEPS} steps of 32 glyphs each; errors are 5-way 1-shot on 1,000 test episodes. "
            f"Brackets are 95 % intervals of {RESAMPLES:,} resamples of the pool's runs."
        )
        write_json(arguments.json, {"provenance": provenance(), "about": about, "rows": rows, "pools": pools})


if __name__ == "__main__":
    main()
