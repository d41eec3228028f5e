"""Classes found from hands alone: twenty people drew each character of an alphabet once, in whatever order.

No character is known, but which alphabet an image is of and who drew it is. Each person's drawings are then the same
set of characters, and matching the sets finds the classes. A prototypical network is trained on them as on labels.

python experiments/hand_matching.py --source runs/omniglot-warp-pairs-cosine-seed0 --seed 0
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from episodes import Attribute, ImageBank
from episodes.datasets import make_dataset
from experiments.hands import halved
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.config.parse import from_dict
from metagvae.config.sections import TrainConfig
from metagvae.evaluation.embedding import embed_bank
from metagvae.storage.atomic_files import write_json
from metagvae.training.episodic import train

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "omniglot" / "warp-protonet.yaml"
ROUNDS, STARTS = 20, 10


def matched(features: Tensor) -> Tensor:
    """int64 ``[characters, drawers]``: a cluster of each drawing; every cluster holds one drawing of each drawer.

    K-means in which each drawer's drawings go to the centres by the permutation of least cost (Kuhn, Naval Research
    Logistics Quarterly, 1955). It starts from the drawings of some drawers in turn; the cheapest end is taken.

    Args:
        features: ``[characters, drawers, D]``, each drawer's drawings in any order of their own.
    """
    x, found = features.double(), list[tuple[float, Tensor]]()
    for start in torch.linspace(0, x.shape[1] - 1, min(STARTS, x.shape[1])).long().tolist():
        centres, before = x[:, start], torch.empty(0)
        for _ in range(ROUNDS):
            costs = torch.cdist(x.transpose(0, 1), centres).square()  # [drawers, characters, clusters]
            clusters = torch.stack([torch.from_numpy(linear_sum_assignment(each.numpy())[1]) for each in costs], 1)
            if torch.equal(clusters, before):
                break
            before = clusters
            centres = torch.zeros_like(centres).index_add_(0, clusters.flatten(), x.flatten(0, 1)) / x.shape[1]
        apart = x - centres[clusters]
        found.append((float(apart.square().sum()), clusters))
    return min(found, key=lambda each: each[0])[1]


def classes_by_hands(bank: ImageBank, features: Tensor, seed: int) -> tuple[ImageBank, dict[str, float]]:
    """A bank whose classes are the clusters of every alphabet, and how right they are by the true classes.

    Args:
        bank: of upright images, as many of each class, the n-th of them by drawer n.
        features: ``[M, D]`` of its images.
        seed: of the order in which each drawer's drawings are looked at, so that none tells what they are.
    """
    generator = torch.Generator().manual_seed(seed)
    values, chosen, numbers, right = bank.attributes["alphabet"].values, list[Tensor](), list[int](), [0, 0]
    for value in values.unique().tolist():
        rows = (values[bank.labels] == value).nonzero().squeeze(1).view(int((values == value).sum()), -1)
        orders = torch.stack([torch.randperm(len(rows), generator=generator) for _ in range(rows.shape[1])], 1)
        rows = rows.gather(0, orders)
        clusters = matched(features[rows])
        rows = rows.gather(0, clusters.argsort(0))  # a row is a cluster now
        counts = torch.zeros(len(rows), len(rows)).long()
        own = orders.gather(0, clusters.argsort(0))
        counts.index_put_((torch.arange(len(rows))[:, None].expand_as(own), own), torch.tensor(1), accumulate=True)
        best = linear_sum_assignment(-counts.numpy())
        right[0] += int(counts[best].sum())
        right[1] += int((counts * (counts - 1)).sum())
        chosen.append(rows)
        numbers += [value] * len(rows)
    every, names = torch.cat(chosen), bank.attributes["alphabet"].names
    made = ImageBank.from_classes(
        [
            (f"{names[value]}/cluster{n:04d}", bank.images[row])
            for n, (value, row) in enumerate(zip(numbers, every, strict=True))
        ],
        dataset=bank.dataset,
        split=bank.split,
        polarity=bank.polarity,
        attributes={"alphabet": Attribute(torch.tensor(numbers), names)},
    )
    pairs = every.numel() * (every.shape[1] - 1)
    return made, {"drawings in the right cluster": right[0] / every.numel(), "pairs of one character": right[1] / pairs}


def all_turns(source: str, bank: ImageBank) -> Tensor:
    """Features ``[M, 4 * D]`` of upright images: those of their four quarter turns beside each other."""
    encoder = zoo.open(source).encoder(["content"]).eval()
    turned = bank.with_rotations()
    features = halved(embed_bank(encoder, turned, Device.choose("cpu")))
    each = features.view(bank.num_classes, 4, -1, features.shape[1])
    return each.transpose(1, 2).flatten(0, 1).flatten(1)


@torch.no_grad()
def prepared(source: str, seed: int) -> tuple[ImageBank, dict[str, float]]:
    bank = make_dataset("omniglot").load("train")
    bank = replace(bank, images=torch.as_tensor(bank.images[:]))
    return classes_by_hands(bank, all_turns(source, bank), seed)


def config(source: str, seed: int, steps: int, folder: str) -> TrainConfig:
    content: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    content["encoder"] = {"source": source, "features": ["content"]}
    content["learner"] = {"name": "prototypes", "options": {"roles": "every", "normalise": 0.5, "scale": 3.0}}
    content["optim"]["steps"] = steps
    content["run"] = {"folder": folder, "seed": seed}
    return from_dict(TrainConfig, content)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", required=True, help="the run of the encoder that the drawings are matched by")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--folder", default="runs/omniglot-hand-matched")
    asked = parser.parse_args()
    folder = f"{asked.folder}-seed{asked.seed}"
    bank, right = prepared(asked.source, asked.seed)
    print(*(f"{name} {100 * value:.2f} %" for name, value in right.items()), sep="\n", flush=True)
    train(config(asked.source, asked.seed, asked.steps, folder), bank.with_rotations())
    write_json(Path(folder) / "matched.json", right)


if __name__ == "__main__":
    main()
