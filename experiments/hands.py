"""The hand that drew an image in the image's feature: how much of it is there, and the gain of taking it out.

Omniglot's drawers are people: in an alphabet the n-th drawing of every character is by the same one. A reader of the
drawer and the drawer's share of what differs within a class tell how much of the hand is there; the error with the true
hands taken off tells what that could bring at most. Then features are whitened by what differs where it should not: by
the drawers' means in an alphabet, for which no character need be known, and beside it by all images and by warps of an
image, which need no label at all, and by drawings of a character, which need every label.

python experiments/hands.py --run runs/omniglot-hand-none-seed0 runs/omniglot-hand-drawer-seed0
python experiments/hands.py --run runs/omniglot-hand-none-seed0 --whiten --json experiments/results/hands-whitened.json
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor, nn

from episodes import AugmentConfig, Episodes, EpisodeShape, ImageBank, to_float, warp
from episodes.datasets import make_dataset
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.encoders.whitening import fit_whitening
from metagvae.evaluation.class_interval import percent
from metagvae.evaluation.embedding import embed_bank
from metagvae.evaluation.evaluator import Evaluator
from metagvae.evaluation.over_seeds import by_method, paired_over_seeds, seed_reductions, spreads_over_seeds, stem
from metagvae.evaluation.results import Result
from metagvae.learners import Learner, PrototypicalNetwork
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

WARPS = AugmentConfig(
    rotation=20, scale=0.25, shear=0.25, translation=0.08, elastic=0.05, stroke=0.5
)  # of the trainings
WARPED, COPIES = 5000, 4  # training images that are warped, and how often each
SHRINKAGES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # 1 leaves features as they are
PLAIN = "as they are"
SHAPES = [(5, 1), (5, 5), (20, 1), (20, 5)]
WARPED_BY, DRAWERS = "whitened by warps of an image", "whitened by the drawers of an alphabet"
BOTH = "whitened by both, equally"
DATA = {"name": "omniglot", "rotations": "classes"}


@dataclass(frozen=True)
class Drawn:
    """A bank and its images' features, of length ``|z| ** 0.5``, ``[M, D]``."""

    bank: ImageBank
    features: Tensor

    @classmethod
    def of(cls, encoder: nn.Module, bank: ImageBank) -> Drawn:
        return cls(bank, halved(embed_bank(encoder, bank, Device.choose("cpu"))))

    def groups(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Image numbers and features, ``[characters, drawers]`` and ``[characters, drawers, D]``, of every alphabet.

        Each of its quarter turns is a group of its own.
        """
        attributes = self.bank.attributes
        kinds = attributes["alphabet"].values * 4 + attributes["rotation"].values
        drawers = self.bank.image_attributes["drawer"].values
        for kind in kinds.unique():
            rows = (kinds[self.bank.labels] == kind).nonzero().squeeze(1)
            rows = rows.view(int((kinds == kind).sum()), -1)
            assert (drawers[rows] == torch.arange(rows.shape[1])).all()
            yield rows, self.features[rows]


def halved(features: Tensor) -> Tensor:
    """Features ``[B, D]`` over the square root of their length, as ``normalise: 0.5`` takes them."""
    lengths: Tensor = features.norm(dim=1, keepdim=True)
    return features / lengths.clamp(min=1e-6).sqrt()


def readable(drawn: Drawn) -> float:
    """How often linear discriminant analysis tells the drawer among those of the alphabet.

    Trained on every other character of the alphabet and asked about the rest, all in the same quarter turn.
    """
    right = []
    for _, features in drawn.groups():
        labels = torch.arange(features.shape[1]).expand(features.shape[:2])
        reader = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        reader.fit(features[::2].flatten(0, 1), labels[::2].flatten())
        right.append(reader.score(features[1::2].flatten(0, 1), labels[1::2].flatten()))
    return float(np.mean(right))


def share(drawn: Drawn) -> float:
    """The drawer's part of the variance within classes, by the components of a two-way analysis without replicates."""
    between, within = 0.0, 0.0
    for _, features in drawn.groups():
        characters, drawers = features.shape[:2]
        apart = features - features.mean(1, keepdim=True)
        offsets = apart.mean(0)
        of_drawers = characters * float(offsets.square().sum()) / (drawers - 1)
        rest = float((apart - offsets).square().sum()) / ((characters - 1) * (drawers - 1))
        between += of_drawers - rest
        within += characters * rest
    return between / (between + within)


def without_hands(drawn: Drawn) -> Tensor:
    """Features less the true drawer's mean offset in the alphabet's other characters."""
    taken = drawn.features.clone()
    for rows, features in drawn.groups():
        apart = features - features.mean(1, keepdim=True)
        taken[rows] = features - (apart.sum(0) - apart) / (len(features) - 1)
    return taken


def references(encoder: nn.Module, train: Drawn) -> dict[str, tuple[Tensor, Tensor]]:
    """Rows that features are whitened by, and int64 of each, equal where they are alike; by name."""
    means, alphabets = [], []
    for number, (_, features) in enumerate(train.groups()):
        means.append(features.mean(0))
        alphabets += [number] * features.shape[1]
    rows = torch.linspace(0, len(train.bank) - 1, WARPED).long()
    images = to_float(train.bank.gather(rows)).repeat_interleave(COPIES, 0)
    torch.manual_seed(0)
    warped = torch.cat([encoder(warp(part, WARPS).images) for part in images.split(200)])
    by_warps = halved(warped), torch.arange(WARPED).repeat_interleave(COPIES)
    by_drawers = torch.cat(means), torch.tensor(alphabets)
    return {
        "whitened by all images": (train.features, torch.zeros(len(train.features)).long()),
        WARPED_BY: by_warps,
        DRAWERS: by_drawers,
        BOTH: (torch.cat([apart(*by_warps), apart(*by_drawers)]), torch.cat([by_warps[1], WARPED + by_drawers[1]])),
        "whitened by drawings of a character": (train.features, train.bank.labels),
    }


def apart(rows: Tensor, alike: Tensor) -> Tensor:
    """Rows less the mean of those alike, all of them together of length 1."""
    counts = torch.bincount(alike)[:, None]
    means = torch.zeros(len(counts), rows.shape[1]).index_add_(0, alike, rows) / counts
    differences: Tensor = rows - means[alike]
    length: Tensor = differences.norm()
    return differences / length


class Measure(Evaluator):
    """The nearest prototype on features that are at hand."""

    def __init__(self, bank: ImageBank, count: int) -> None:
        super().__init__(bank, Episodes(EpisodeShape(5, 1), stream=bank.split), count, Device.choose("cpu"))
        self.held = torch.empty(0)

    def _features(self, learner: Learner) -> Tensor:
        return self.held.unsqueeze(0)

    def of(self, name: str, features: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Result]:
        self.held = features
        return self.measure(name, PrototypicalNetwork(nn.Identity()), shapes)


def whitened(
    name: str, rows: Tensor, alike: Tensor, validation: Drawn, test: Drawn, choice: Measure
) -> tuple[float, Tensor]:
    """The shrinkage with the lowest 20-way 1-shot error on validation characters, and the test features by it."""
    errors, made = [], []
    for shrinkage in SHRINKAGES:
        made.append(fit_whitening(rows, alike, rows.shape[1] - 1, shrinkage).float())
        errors.append(choice.of(name, made[-1](validation.features), [(20, 1)])[0].error)
    best = int(np.argmin(errors))
    return SHRINKAGES[best], made[best](test.features)


def table(results: Sequence[Result], column: str) -> list[dict[str, str]]:
    """A row for each method over its training seeds: its errors, and what it saves of the first's at 20-way 1-shot."""
    methods = by_method(results)
    spread = {(s.method, s.way, s.shot): s.deviation for s in spreads_over_seeds(methods)}
    saved = {(r.other, r.baseline): r.text() for r in seed_reductions(methods)[0] if (r.way, r.shot) == (20, 1)}
    rows: dict[str, dict[str, str]] = {}
    hard = [m for m in methods if (m.result.way, m.result.shot) == (20, 1)]
    for m in methods:
        r = m.result
        row = rows.setdefault(r.method, {column: r.method.replace(" (1 seeds)", "")})
        text, deviation = percent(r.error, r.half_width, r.over_classes), spread.get((r.method, r.way, r.shot))
        row[f"{r.way}w {r.shot}s"] = text if deviation is None else f"{text} (sd {100 * deviation:.2f})"
    for m in hard:
        row, names = rows[m.result.method], [stem(next(iter(one.seeds.values())).method) for one in (m, hard[0])]
        gap = None if m is hard[0] else paired_over_seeds(m, hard[0])[0]
        row["20w 1s, points"] = percent(gap.difference, gap.half_width, gap.over_classes, "+") if gap else "–"
        for name in dict.fromkeys((names[1], WARPED_BY)):
            if name == names[1] or (WARPED_BY, names[1]) in saved:
                found = saved.get((names[0], name))
                row[f"20w 1s, % less than {name}"] = found.split(": ")[1].split(" (")[0] if found else "–"
    return list(rows.values())


def whiten(
    runs: Sequence[str], features: list[str], banks: dict[str, ImageBank], counts: Sequence[int]
) -> dict[str, Any]:
    """Errors on test characters of features as they are and whitened, and the shrinkages chosen, by method."""
    choice, final = Measure(banks["validation"], counts[0]), Measure(banks["test"], counts[1])
    results, chosen = list[Result](), dict[str, list[float]]()
    for run in runs:
        encoder, seed = zoo.open(run).encoder(features).eval(), run.rpartition("-seed")[2]
        train, validation, test = (Drawn.of(encoder, banks[split]) for split in ("train", "validation", "test"))
        results += final.of(f"{PLAIN}-seed{seed}", test.features, [(20, 1)])
        for name, (rows, alike) in references(encoder, train).items():
            shrinkage, moved = whitened(name, rows, alike, validation, test, choice)
            chosen.setdefault(name, []).append(shrinkage)
            results += final.of(f"{name}-seed{seed}", moved, [(20, 1)])
            print(run, name, shrinkage, f"{100 * results[-1].error:.2f}", flush=True)
    least = ", ".join(f"{name} {min(each):g} to {max(each):g}" for name, each in chosen.items())
    return {"about": f"Shrinkages chosen on validation characters: {least}.", "rows": table(results, "features")}


def read(
    runs: Sequence[str], features: list[str], banks: dict[str, ImageBank], counts: Sequence[int]
) -> dict[str, Any]:
    """Errors on test characters, and how much of the hand there is in the features of validation characters."""
    choice, final = Measure(banks["validation"], counts[0]), Measure(banks["test"], counts[1])
    results, seen = list[Result](), dict[str, list[list[float]]]()
    for run in runs:
        encoder = zoo.open(run).encoder(features).eval()
        validation, test = (Drawn.of(encoder, banks[split]) for split in ("validation", "test"))
        results += final.of(Path(run).name, test.features, SHAPES)
        offs = [choice.of(run, each, [(20, 1)])[0].error for each in (validation.features, without_hands(validation))]
        numbers = [readable(validation), share(validation), *offs]
        seen.setdefault(stem(Path(run).name), []).append(numbers)
        print(run, *(f"{100 * number:.2f}" for number in numbers), flush=True)
    heads = ("drawer read", "drawer's share of the variance within classes", "20w 1s", "20w 1s, true hands off")
    rows = [
        {"run": name, "seeds": str(len(each)), **dict(zip(heads, map(_mean, zip(*each, strict=True)), strict=True))}
        for name, each in seen.items()
    ]
    return {"groups": {"seen": rows, "trained": table(results, "run")}}


def _mean(values: Sequence[float]) -> str:
    spread = f" (sd {100 * np.std(values, ddof=1):.2f})" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.2f}{spread}"


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", nargs="+", required=True, help="runs, the first one's method being the baseline")
    parser.add_argument("--whiten", action="store_true", help="whiten their features, all of them of one method")
    parser.add_argument("--features", nargs="+", default=["content"])
    parser.add_argument("--episodes", type=int, nargs=2, default=[1000, 10000], help="for choices, and of the test")
    parser.add_argument("--json", default="experiments/results/hands.json")
    asked = parser.parse_args(arguments)
    made = provenance()  # before the first file is written
    banks = {split: make_dataset(**DATA).load(split) for split in ("train", "validation", "test")}
    found = (whiten if asked.whiten else read)(asked.run, asked.features, banks, asked.episodes)
    write_json(Path(asked.json), {"provenance": made, **found})


if __name__ == "__main__":
    main()
