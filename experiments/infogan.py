"""InfoGAN with its contrastive regulariser and without, on 32 x 32 sprites: scores of pairs that share their beginning.

A pair is one run up to the step where the regulariser sets in; from that state both go on to the end. So the two differ
in the regulariser alone, and their beginning is trained once. What is not under runs/ yet is trained.

python experiments/infogan.py --steps 3000 --width 8 --start 0.5 --json experiments/results/infogan.json
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from episodes.datasets.sprites import SpritePictures
from episodes.untrusted.plain_files import read_yaml, yaml_text
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.config.adversary import AdversarySection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import DataConfig, EncoderSection, PretrainConfig, VAESection
from metagvae.evaluation.codes import encode
from metagvae.evaluation.disentanglement import factor_vae, mig
from metagvae.report.figures import tile
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.training.pretraining import pretrain
from metagvae.vae.synthesis import Synthesis

CONTRAST = 2.0
NAMES = {"plain": "InfoGAN", "cr": "InfoGAN-CR"}


def config(folder: Path, seed: int, steps: int, width: int, start: float, branching: float) -> PretrainConfig:
    """configs/sprites/infogan-cr.yaml at another size; with ``start`` 1 the regulariser never sets in.

    Args:
        branching: share of the steps after which a state is kept.
    """
    return PretrainConfig(
        data=DataConfig("sprites", size=32),
        encoder=EncoderSection(backbone="infogan", width=width, latent=10, features=["codes"]),
        vae=VAESection(decoder="infogan", decoder_width=width, prior={"name": "uniform_codes", "codes": 5, "noise": 5}),
        adversary=AdversarySection(contrast=CONTRAST, start=start, width=width),
        batch=64,
        optim=OptimSection(steps=steps, lr=0.002, betas=[0.5, 0.999], schedule="constant", precision="bfloat16"),
        run=RunSection(folder=str(folder), seed=seed, device="cpu", save_every=round(branching * steps), resume="auto"),
    )


def branch(run: Path, folder: Path, step: int, start: float) -> None:
    """A run's folder as it was after ``step`` steps, with a config in which the regulariser sets in there."""
    if folder.exists():
        return
    (folder / "state").mkdir(parents=True)
    settings = read_yaml(run / "config.yaml", "a run's config")
    settings["adversary"]["start"] = start
    (folder / "config.yaml").write_text(yaml_text(settings))
    for name in ("provenance.json", "metrics.jsonl", f"state/step-{step:07d}.pt"):
        shutil.copy(run / name, folder / name)


def trained(root: Path, seed: int, steps: int, width: int, start: float) -> dict[str, Path]:
    """The folders of a pair, trained if they are not there."""
    folders = {kind: root / f"sprites-infogan-{kind}-{width}-{steps}-{start:g}-seed{seed}" for kind in NAMES}
    if not (folders["plain"] / "vae.safetensors").exists():
        pretrain(config(folders["plain"], seed, steps, width, 1.0, start))
    if not (folders["cr"] / "vae.safetensors").exists():
        branch(folders["plain"], folders["cr"], round(start * steps), start)
        pretrain(config(folders["cr"], seed, steps, width, start, start))
    return folders


def measured(run: Path) -> dict[str, float]:
    """Scores of the codes that a run's encoder reads, on sprites drawn for it."""
    encoder, device, pictures = zoo.open(run).encoder(), Device.choose("cpu"), SpritePictures(32)
    train, test = (encode(encoder, pictures, count, seed, device) for seed, count in enumerate((10_000, 5_000)))
    return {
        "FactorVAE score, held out": factor_vae(train, test),
        "the same, fitted and scored on the same groups": factor_vae(train, test, votes=500, held_out=False),
        "MIG": mig(train),
    }


def cost(width: int) -> dict[str, float]:
    """Milliseconds of one core that a step takes, before the regulariser sets in and after it; medians of ten."""
    from episodes import to_float
    from metagvae.training.step import adam, by_rate
    from metagvae.vae.infogan import InfoGAN
    from metagvae.zoo.build import new_encoder, new_vae

    chosen = config(Path("unused"), 0, 10, width, 0.5, 0.5)
    bank = replace(chosen.data, options={"count": 200}).make().load("train")
    vae = new_vae(new_encoder(chosen.encoder, chosen.vae, bank, 0), chosen.vae, {})
    assert chosen.adversary is not None
    device = Device.choose("cpu", chosen.optim.precision)
    gan, images = InfoGAN(vae, chosen.adversary), device.layout(to_float(bank.images[:64]))
    device.place(gan)
    optimiser = adam(by_rate(gan, gan.rates()), chosen.optim, False)
    found = {}
    for name, progress in (("plain", 0.0), ("cr", 1.0)):
        times = []
        for _ in range(12):
            began = time.process_time()
            with device.precision():
                terms = gan.losses(images, progress=progress)
            loss = torch.stack(list(terms.values())).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            times.append(time.process_time() - began)
        found[NAMES[name]] = round(1000 * float(np.median(times[2:])), 1)
    return found


def paired(gaps: list[float]) -> str:
    """A mean difference and its 95 % interval over seeds."""
    if len(gaps) < 2:
        return f"{gaps[0]:+.3f}"
    half = float(student.ppf(0.975, len(gaps) - 1) * np.std(gaps, ddof=1) / len(gaps) ** 0.5)
    return f"{np.mean(gaps):+.3f} ± {half:.3f}"


@torch.no_grad()
def draw(pair: dict[str, Path], path: Path) -> None:
    """Draws from the prior, and one of them with each code moved, of both runs of a pair."""
    rows, labels = [], []
    for kind, name in NAMES.items():
        synthesis = Synthesis(zoo.open(pair[kind]).vae(), seed=1)
        moved = synthesis.traversals(synthesis.prior(1)[0], range(5), np.linspace(-1, 1, 11).tolist())
        rows += [synthesis.samples(11).images[0], *moved.images]
        labels += [f"{name}\nsamples", *moved.rows]
    tile(rows, labels, path, "draws from the prior; below, one with a code moved from -1 to 1")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--start", type=float, default=0.9, help="share of the steps before the regulariser")
    parser.add_argument("--train_only", action="store_true", help="train what is missing and measure nothing")
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--figure", type=Path, help="file to draw the first pair's images to")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scores: dict[str, list[dict[str, float]]] = {kind: [] for kind in NAMES}
    pairs = []
    for seed in arguments.seeds:
        pairs.append(trained(arguments.folder, seed, arguments.steps, arguments.width, arguments.start))
        if arguments.train_only:
            continue
        for kind, folder in pairs[-1].items():
            scores[kind].append(measured(folder))
            print(NAMES[kind], seed, {name: round(value, 3) for name, value in scores[kind][-1].items()}, flush=True)
    if arguments.train_only:
        return
    names = list(scores["plain"][0])
    rows: list[dict[str, Any]] = [
        {"generator": NAMES[kind], **{n: f"{np.mean([s[n] for s in found]):.3f}" for n in names}}
        for kind, found in scores.items()
    ]
    gaps = {n: [b[n] - a[n] for a, b in zip(scores["plain"], scores["cr"], strict=True)] for n in names}
    rows.append({"generator": "difference of pairs, 95 %", **{n: paired(gap) for n, gap in gaps.items()}})
    for row in rows:
        print("  ".join(row.values()))
    made = provenance()  # before the first file is written
    if arguments.figure:
        draw(pairs[0], arguments.figure)
    if arguments.json:
        milliseconds = cost(arguments.width)
        about = (
            f"{len(arguments.seeds)} pairs of {arguments.steps:,} steps of 64 sprites of 32 x 32, "
            f"width {arguments.width}, in bfloat16; "
            f"the regulariser (weight {CONTRAST:g}) is in force for the last "
            f"{100 * (1 - arguments.start):.0f} % of the steps. "
            f"A step takes {milliseconds['InfoGAN']} ms of one core, with the regulariser {milliseconds['InfoGAN-CR']}."
        )
        content = {"provenance": made, "about": about, "rows": rows, "per_seed": scores, "cost": milliseconds}
        write_json(arguments.json, content)


if __name__ == "__main__":
    main()
