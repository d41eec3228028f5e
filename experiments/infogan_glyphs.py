"""A GAN's encoder, and episodes of classes that it draws, for few-shot learners on glyphs.

Rows: the encoder that reads codes back, frozen; a network trained on episodes of drawn classes, which share their codes
and differ in the noise; and as controls raw pixels, an untrained network, and VAEs of the pools of
experiments/selection.py. What is not under runs/ yet is trained, but for those pools.

python experiments/infogan_glyphs.py --json experiments/results/infogan-glyphs.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from episodes import Episodes, EpisodeShape
from episodes.datasets import make_dataset
from metagvae import Encoder, EncoderConfig, zoo
from metagvae.cli.arguments import config_in
from metagvae.compute.device import Device
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import EncoderSection, PretrainConfig, TrainConfig
from metagvae.encoders.controls import Pixels
from metagvae.evaluation.evaluator import Evaluator
from metagvae.evaluation.results import interval
from metagvae.learners import Learner, make_learner
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain
from metagvae.vae.code_classes import code_classes
from metagvae.zoo.trained import Trained

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"InfoGAN": 1.0, "InfoGAN-CR": 0.5}  # when the regulariser sets in
POOL = {"plain VAE": 1, "VAE with deformable PCA": 5, "VAE with warp pairs": 8}  # of mixed guidances, all of beta 1
STEPS = 200  # of episodes of drawn classes


def generator(root: Path, kind: str, seed: int) -> Trained:
    """A run of configs/glyphs/infogan-cr.yaml, trained if it is not there."""
    folder = root / f"glyphs-{kind.lower()}-seed{seed}"
    if not (folder / "vae.safetensors").exists():
        config = config_in(str(ROOT / "configs" / "glyphs" / "infogan-cr.yaml"), PretrainConfig, "A run of this.")
        assert config.adversary is not None
        config.adversary.start = KINDS[kind]
        config.run.folder, config.run.seed, config.run.device, config.run.resume = str(folder), seed, "cpu", "auto"
        pretrain(config)
    return zoo.open(folder)


def on_drawn_classes(root: Path, kind: str, seed: int) -> Learner:
    """Nearest prototypes whose network learnt from episodes of drawn classes alone; its last state."""
    folder = root / f"glyphs-{kind.lower()}-codes-seed{seed}"
    if not (folder / "learner.safetensors").exists():
        bank = code_classes(generator(root, kind, seed).vae(), 500, 10, seed=seed)
        config = TrainConfig(
            encoder=EncoderSection(backbone="patches", width=32, latent=24, features=["backbone"]),
            episodes=EpisodeSection(20, 1, 4, 1),
            validation=ValidationSection(every=0),
            optim=OptimSection(steps=STEPS, lr=0.002),
            run=RunSection(folder=str(folder), seed=seed, device="cpu", resume="auto"),
        )
        train(config, bank, bank)
    return zoo.open(folder).learner()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--train_only", action="store_true", help="train what is missing and measure nothing")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    root = arguments.folder

    def frozen(run: Trained, features: list[str]) -> Learner:
        return make_learner("prototypes", run.encoder(features), 5)

    torch.manual_seed(arguments.seed)
    untrained = Encoder(EncoderConfig("infogan", 8, latent=20, features=["backbone"]))
    learners: dict[str, Learner] = {
        "raw pixels": make_learner("prototypes", Pixels(), 5),
        "untrained network": make_learner("prototypes", untrained.eval(), 5),
    }
    for kind in arguments.kinds:
        run = generator(root, kind, arguments.seed)
        learners[f"{kind}, codes"] = frozen(run, ["codes"])
        learners[f"{kind}, backbone"] = frozen(run, ["backbone"])
        learners[f"network on episodes of {kind}'s codes"] = on_drawn_classes(root, kind, arguments.seed)
    if arguments.train_only:
        return
    for name, place in POOL.items():
        learners[name] = frozen(zoo.open(root / f"selection-mixed-guidances-{place}"), ["content"])
    bank = make_dataset("glyphs").load("test")
    drawn = Episodes(EpisodeShape(5, 1, 15), 0, "test")
    evaluator = Evaluator(bank, drawn, arguments.episodes, Device.choose("cpu"))
    rows: list[dict[str, Any]] = []
    for name, learner in learners.items():
        errors = 100 * evaluator.errors(learner.eval(), [(5, 1)])[0]
        rows.append({"features": name, "5w 1s error, %": f"{errors.mean():.1f} ± {interval(errors):.1f}"})
        print("  ".join(rows[-1].values()), flush=True)
    if arguments.json:
        about = f"One seed; the same {arguments.episodes:,} episodes of test glyphs; nearest prototypes."
        write_json(arguments.json, {"provenance": provenance(), "about": about, "rows": rows})


if __name__ == "__main__":
    main()
