"""Every head of easyfsl 1.5 and ours on the same episodes of Omniglot's test characters, embedded once.

Heads with weights of their own are trained first, on the same features of the training characters. The speed is that of
the head alone, in episodes per second of processor time on one thread; ours take 80 episodes at once, easyfsl's one.

python experiments/easyfsl_heads.py --json experiments/results/easyfsl-heads.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import Episodes, EpisodeSampler, EpisodeShape
from episodes.datasets import make_dataset
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.evaluation.class_interval import percent
from metagvae.evaluation.embedding import embed_bank
from metagvae.evaluation.results import interval
from metagvae.interop.easyfsl import EasyfslLearner, method_names
from metagvae.learners import FeatureLearner, PrototypicalNetwork, RidgeRegression, SoftKMeans
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

ENCODER = "warp-protonet-omniglot"
WAY, QUERY = 5, 15
AT_ONCE = 80
STEPS, TASKS = 100, 2  # of the training of heads with weights
SLOW = ("Finetune", "PTMAP", "RelationNetworks", "TIM", "TransductiveFinetuning")  # under 100 episodes a second


class Given(nn.Module):
    """Features that are at hand, of a known length."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.feature_size = size

    def forward(self, features: Tensor) -> Tensor:
        return features


class Features:
    """A split's pictures, embedded once, and episodes of them."""

    def __init__(self, split: str) -> None:
        self.bank = make_dataset("omniglot", rotations="classes").load(split)
        encoder = zoo.open(ENCODER).encoder().eval()
        self.rows = embed_bank(encoder, self.bank, Device.choose("cpu", "float32"))

    def episodes(self, shot: int, start: int, count: int, seed: int = 0) -> Tensor:
        """``[T, N, K + Q, D]``."""
        drawn = Episodes(EpisodeShape(WAY, shot, QUERY), seed=seed, stream=self.bank.split)
        return self.rows[EpisodeSampler(self.bank, drawn).span(start, count).images]


def labels(tasks: int) -> Tensor:
    return torch.arange(WAY).repeat_interleave(QUERY).expand(tasks, -1)


def train(learner: FeatureLearner, features: Features, shot: int) -> None:
    """A few hundred steps of cross entropy on training characters."""
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    learner.train()
    for step in range(STEPS):
        drawn = features.episodes(shot, TASKS * step, TASKS)
        logits = learner.ask_head(learner.fit_head(drawn[:, :, :shot]), drawn[:, :, shot:])
        if "Relation" in learner.name:  # its scores are between 0 and 1, and its paper fits them by squares
            loss = F.mse_loss(logits, F.one_hot(labels(TASKS), WAY).float())
        else:
            loss = F.cross_entropy(logits.flatten(0, 1), labels(TASKS).flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.no_grad()
def measure(learner: FeatureLearner, drawn: Tensor, shot: int) -> tuple[Tensor, float]:
    """The error of each episode, and episodes per second of processor time."""
    learner.eval()
    wrong, started = [], time.process_time()
    for part in drawn.split(AT_ONCE):
        logits = learner.ask_head(learner.fit_head(part[:, :, :shot]), part[:, :, shot:])
        wrong.append((logits.argmax(-1) != labels(len(part))).float().mean(-1))
    return torch.cat(wrong), len(drawn) / (time.process_time() - started)


@torch.no_grad()
def agreement(drawn: Tensor, shot: int, size: int) -> dict[str, float | int]:
    """easyfsl's prototypes against ours, episode by episode."""
    ours = PrototypicalNetwork(Given(size)).eval()
    theirs = EasyfslLearner(Given(size), "PrototypicalNetworks").eval()
    gap, alike, same = 0.0, 0, 0
    for task in drawn.split(1):
        support, query = task[:, :, :shot], task[:, :, shot:]
        found = theirs.ask_head(theirs.fit_head(support), query).argmax(-1)
        mine = ours.fit_head(support)
        apart = float((theirs.method.prototypes - mine[0]).abs().max())
        gap, alike = max(gap, apart), alike + (apart <= 1e-5)
        same += int((found != ours.ask_head(mine, query).argmax(-1)).sum()) == 0
    return {"shot": shot, "largest difference": gap, "prototypes alike": alike, "answers alike": same}


def heads(size: int) -> list[tuple[FeatureLearner, str, bool]]:
    """Learners, their names, and whether they have weights to be trained."""
    given = Given(size)
    made: list[tuple[FeatureLearner, str, bool]] = [
        (PrototypicalNetwork(given), "prototypes", False),
        (RidgeRegression(given), "ridge", False),
        (SoftKMeans(given), "soft-k-means", False),
        (SoftKMeans(given, balanced=True), "soft-k-means, balanced", False),
        (SoftKMeans(given, balanced=True), "soft-k-means, balanced, the slow ones' episodes:PTMAP", False),
    ]
    for name in method_names():
        torch.manual_seed(0)
        learner = EasyfslLearner(given, name)
        made.append((learner, learner.name, any(p.requires_grad for p in learner.parameters())))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=100, help="episodes of the slow heads, the first of all")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    test, training = Features("test"), Features("train")
    size = test.rows.shape[1]
    drawn = {shot: test.episodes(shot, 0, arguments.episodes) for shot in (1, 5)}
    groups: dict[str, list[dict[str, Any]]] = {"inductive": [], "transductive": []}
    for learner, name, has_weights in heads(size):
        row: dict[str, Any] = {
            "learner": name.removesuffix(":PTMAP") if name.startswith("soft") else name,
            "setting": "transductive" if learner.transductive else "inductive",
            "weights": f"trained for {STEPS} steps" if has_weights else "none",
            "episodes": arguments.slow if name.partition(":")[2] in SLOW else arguments.episodes,
        }
        speeds = {}
        for shot, part in drawn.items():
            if has_weights:
                train(learner, training, shot)
            wrong, speed = measure(learner, part[: row["episodes"]], shot)
            row[f"{WAY}w {shot}s"] = percent(float(wrong.mean()), interval(wrong.double().numpy()), None)
            speeds[f"episodes/s, {shot}s"] = f"{speed:.3g}" if speed < 100 else f"{speed:,.0f}"
        groups[row["setting"]].append(row | speeds)
        print("  ".join(map(str, (row | speeds).values())), flush=True)
    checks = [agreement(part, shot, size) for shot, part in drawn.items()]
    print(checks)
    about = (
        f"{ENCODER} on {test.bank.dataset}, test split, episodes of {QUERY} queries per class, "
        "seed 0, the same for every row; error in %, ± the 95 % interval over episodes; episodes per second of "
        "processor time, the head alone."
    )
    if arguments.json:
        content = {"provenance": provenance(), "about": about, "groups": groups, "prototypes": checks}
        write_json(arguments.json, content)


if __name__ == "__main__":
    main()
