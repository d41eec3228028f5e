"""Whether the interval over classes holds: random halves of the alphabets, each asked for the error on the other.

Of each half the interval of the mean over classes must agree with that of the other (their difference lies within the
two together), and the other half's error must lie where the interval of another draw says.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from episodes import Episodes, EpisodeShape, ImageBank
from episodes.datasets import make_dataset
from metagvae.compute.device import Device
from metagvae.encoders.controls import CONTROLS
from metagvae.evaluation.class_interval import ClassInterval, class_units
from metagvae.evaluation.embedding import embed_bank
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import FeatureLearner, Learner
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.studies.methods import encoder_learner
from metagvae.studies.protocol import Head


class Embedded(Evaluator):
    """An evaluator of some classes of a bank whose pictures were embedded before."""

    def __init__(self, bank: ImageBank, classes: Tensor, features: Tensor, episodes: Episodes, count: int) -> None:
        super().__init__(bank.subset(classes), episodes, count, Device.choose("cpu"))
        spans = [torch.arange(int(bank.offsets[c]), int(bank.offsets[c + 1])) for c in classes.tolist()]
        self.embedded = features[torch.cat(spans)].unsqueeze(0)

    def _features(self, learner: Learner) -> Tensor:
        return self.embedded


def spread(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="omniglot")
    parser.add_argument("--rotations", default="classes")
    parser.add_argument("--split", default="test")
    parser.add_argument("--encoder", nargs="+", default=["pixels", "warp-protonet-omniglot"])
    parser.add_argument("--ways", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--halves", type=int, default=200)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--json", default="experiments/results/halves.json")
    chosen = parser.parse_args(arguments)
    device = Device.choose("cpu")
    bank = make_dataset(chosen.data, rotations=chosen.rotations).load(chosen.split)
    unit, units = class_units(bank)
    values = units.unique()
    rows = []
    for name in chosen.encoder:
        learner = encoder_learner(name, bank, bank, Head())
        assert isinstance(learner, FeatureLearner)
        features = embed_bank(learner.encoder, bank, device)
        for way in chosen.ways:
            pairs: list[tuple[ClassInterval, float, float]] = []  # a half's interval, its error, the other's
            both: list[bool] = []
            for number in range(chosen.halves):
                order = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(number))]
                sides = []
                for part in order.chunk(2):
                    classes = torch.nonzero(torch.isin(units, part)).flatten()
                    drawn = Episodes(EpisodeShape(way, 1, 15), seed=number, stream="test")
                    meter = Embedded(bank, classes, features, drawn, chosen.episodes)
                    ((_, found),) = meter.tallied(learner, [(way, 1)])
                    sides.append(found)
                one, two = (side.interval() for side in sides)
                pairs += [(one, sides[0].error, sides[1].error), (two, sides[1].error, sides[0].error)]
                half = math.hypot(one.half_width or 0, two.half_width or 0)
                both.append(abs(sides[0].error - sides[1].error) <= half)
            share = len(pairs) / 100
            rows.append(
                {
                    "encoder": name if name in CONTROLS else Path(name).name,
                    "episodes": f"{way}-way 1-shot",
                    f"{unit}s a half": f"{len(values) // 2}",
                    "error, %": f"{100 * sum(error for _, error, _ in pairs) / len(pairs):.2f}",
                    "sd over halves": f"{100 * spread([error for _, error, _ in pairs]):.2f}",
                    "mean half width": f"{100 * sum(over.half_width or 0 for over, _, _ in pairs) / len(pairs):.2f}",
                    "halves agree, %": f"{100 * sum(both) / len(both):.1f}",
                    "other half in [other_low, other_high], %": (
                        f"{sum(over.other_low <= other <= over.other_high for over, _, other in pairs) / share:.1f}"
                    ),
                    "other half in [low, high], %": (
                        f"{sum(over.low <= other <= over.high for over, _, other in pairs) / share:.1f}"
                    ),
                }
            )
            print(rows[-1], flush=True)
    about = (
        f"{bank.dataset}, {bank.split} split, {len(values)} {unit}s, {chosen.halves} random halves, each asked for the "
        f"other, {chosen.episodes} episodes each."
    )
    write_json(Path(chosen.json), {"provenance": provenance(), "about": about, "rows": rows})


if __name__ == "__main__":
    main()
