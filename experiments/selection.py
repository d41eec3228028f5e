"""Choosing without labels against choosing blindly: pools of ten pretraining runs on glyphs, and each criterion's pick.

Trains what is not under runs/ yet, a few seconds a run, then measures every run's 5-way 1-shot error on test characters
(nearest prototypes) and what `metagvae select` says of it on validation characters. Regret is the pick's error less the
best run's; that of a random pick is the mean over the pool. With --sprites the pool is ten beta-VAEs on 32 x 32
sprites, and a run is as good as its FactorVAE score.

python experiments/selection.py --json experiments/results/selection-pools.json
python experiments/selection.py --sprites --json experiments/results/selection-sprites.json
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
from episodes.datasets.sprites import SpritePictures
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import DataConfig, EncoderSection, PretrainConfig, VAESection
from metagvae.evaluation.codes import encode
from metagvae.evaluation.disentanglement import factor_vae
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import make_learner
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.studies.selection import CRITERIA, Selection, select
from metagvae.training.pretraining import pretrain

STEPS, RESAMPLES = 500, 2000
SPRITE_STEPS = 2000
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

# of the sprites: two seeds of each weight, as the paper's pools mix seeds and weights
SPRITES = [(seed, beta) for beta in (1.0, 2.0, 4.0, 8.0, 16.0) for seed in (300, 301)]


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


def trained_on_sprites(folder: Path, seed: int, beta: float) -> str:
    """The folder of a beta-VAE of 32 x 32 sprites, trained if it is not there."""
    if not (folder / "vae.safetensors").exists():
        pretrain(
            PretrainConfig(
                data=DataConfig("sprites", size=32),
                encoder=EncoderSection(backbone="patches", width=32, latent=8),
                vae=VAESection(beta=beta, decoder="patches", decoder_width=32),
                batch=64,
                optim=OptimSection(steps=SPRITE_STEPS, lr=0.002, schedule="cosine"),
                run=RunSection(folder=str(folder), seed=seed, device="cpu", resume="auto"),
            )
        )
    return str(folder)


def scores(runs: list[str]) -> np.ndarray:
    """Held-out FactorVAE score of each run on the same sprites."""
    device, pictures, found = Device.choose("cpu"), SpritePictures(32), []
    for run in runs:
        encoder = zoo.open(run).encoder()
        found.append(
            factor_vae(*(encode(encoder, pictures, count, n, device) for n, count in enumerate((10_000, 5_000))))
        )
    return np.array(found)


def measured(runs: list[str]) -> np.ndarray:
    """5-way 1-shot error in % of each run on the same test episodes."""
    bank = make_dataset("glyphs").load("test")
    evaluator = Evaluator(bank, Episodes(EpisodeShape(5, 1, 15), 0, "test"), 1000, Device.choose("cpu"))
    learners = [make_learner("prototypes", zoo.open(run).encoder(), 5) for run in runs]
    return np.array([100 * float(evaluator.errors(learner, [(5, 1)])[0].mean()) for learner in learners])


def resampled(good: np.ndarray, merit: np.ndarray) -> tuple[str, float, tuple[float, float]]:
    """Rank correlation of a criterion with merit, with its interval over runs; and its pick's regret, with its own."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(merit), size=len(merit)) for _ in range(RESAMPLES)]
    ranks = [spearmanr(good[d], merit[d])[0] for d in draws if np.ptp(good[d]) > 0 and np.ptp(merit[d]) > 0]
    low, high = np.percentile(ranks, [2.5, 97.5])
    regrets = [merit[d].max() - merit[d][good[d].argmax()] for d in draws]
    least, most = np.percentile(regrets, [2.5, 97.5])
    correlation = f"{spearmanr(good, merit)[0]:+.2f} [{low:+.2f}, {high:+.2f}]"
    return correlation, float(merit.max() - merit[good.argmax()]), (float(least), float(most))


def rows_of(pool: str, errors: np.ndarray, found: Selection) -> list[dict[str, str]]:
    """A row for each criterion: its rank correlation with being good, and its regret, with intervals over runs."""
    rows = []
    for by, (name, more) in CRITERIA.items():
        correlation, regret, (least, most) = resampled(np.array(found.values[by]) * (1 if more else -1), -errors)
        rows.append(
            {
                "pool": pool,
                "criterion": name,
                "rank correlation": correlation,
                "regret, points": f"{regret:.1f} [{least:.1f}, {most:.1f}]",
                "of a random pick": f"{errors.mean() - errors.min():.1f}",
                "best and worst run, %": f"{errors.min():.1f}, {errors.max():.1f}",
            }
        )
    return rows


def rows_of_scores(score: np.ndarray, found: Selection) -> list[dict[str, str]]:
    """A row for each criterion: its rank correlation with the FactorVAE score, and its pick's score."""
    rows = []
    for by, (name, more) in CRITERIA.items():
        correlation, regret, (least, most) = resampled(np.array(found.values[by]) * (1 if more else -1), score)
        rows.append(
            {
                "criterion": name,
                "rank correlation": correlation,
                "score of its pick": f"{score.max() - regret:.3f}",
                "of the best, %": f"{100 * (1 - regret / score.max()):.0f}",
                "regret": f"{regret:.3f} [{least:.3f}, {most:.3f}]",
                "of a random pick": f"{score.max() - score.mean():.3f}",
                "best, mean and worst run": f"{score.max():.3f}, {score.mean():.3f}, {score.min():.3f}",
            }
        )
    return rows


def on_sprites(arguments: argparse.Namespace) -> None:
    """The pool of beta-VAEs on sprites."""
    runs = [
        trained_on_sprites(arguments.folder / f"selection-sprites-{place}", *spec) for place, spec in enumerate(SPRITES)
    ]
    if arguments.train_only:
        return
    score = scores(runs)
    found = select(runs, make_dataset("sprites", size=32, count=2000).load("validation"))
    rows = rows_of_scores(score, found)
    print(found.table(), score.round(3), *rows, sep="\n", flush=True)
    if arguments.json:
        betas = ", ".join(f"{beta:g}" for beta in dict.fromkeys(beta for _, beta in SPRITES))
        about = (
            f"Ten beta-VAEs of {SPRITE_STEPS:,} steps of 64 sprites of 32 x 32, two seeds of each beta of {betas}; "
            f"FactorVAE scores are held out. Brackets are 95 % intervals of {RESAMPLES:,} resamples of the runs."
        )
        content = {**found.content(), "about": about, "rows": rows, "scores": score.round(4).tolist()}
        write_json(arguments.json, content)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--pools", nargs="+", default=list(POOLS))
    parser.add_argument("--sprites", action="store_true", help="the pool of beta-VAEs on sprites")
    parser.add_argument("--train_only", action="store_true", help="train what is missing and measure nothing")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.sprites:
        on_sprites(arguments)
        return
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
