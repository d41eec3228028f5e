"""The work of `metagvae sampling`: samples of several VAEs against real test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from episodes import ImageBank, InputError, to_float
from episodes.counter_rng import seed_for
from metagvae import zoo
from metagvae.evaluation.lenet import train_lenet
from metagvae.evaluation.sample_quality import (
    Estimate,
    bootstrap,
    frechet_distance,
    kernel_distance,
    nearest,
    paired_bootstrap,
    precision_and_recall,
)
from metagvae.evaluation.text_table import text_table
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.vae.synthesis import Synthesis
from metagvae.zoo.trained import Trained

Features = Callable[[Tensor], Tensor]
LENET = "lenet"


@dataclass(frozen=True)
class SampleScores:
    """Of one VAE's samples.

    Args:
        frechet, kernel: distances to real test images in the features.
        against: Frechet distance less that of the first VAE; None for the first.
        precision, recall: shares in [0, 1].
        discriminator: held-out accuracy of a network trained to tell real images from drawn ones.
        nearest: median distance of a sample to the nearest training image.
    """

    frechet: Estimate
    kernel: Estimate
    against: Estimate | None
    precision: float
    recall: float
    discriminator: float
    nearest: float


@dataclass
class SampleTable:
    """All that was measured, by the name of the VAE."""

    scores: dict[str, SampleScores] = field(default_factory=dict)
    about: str = ""

    def rows(self) -> list[dict[str, str]]:
        """Rows of text, a table's cells by column."""
        first = next(iter(self.scores), "")
        return [
            {
                "VAE": name,
                "Frechet distance": str(found.frechet),
                f"less {first}'s": "–" if found.against is None else str(found.against),
                "kernel distance": str(found.kernel),
                "precision": f"{found.precision:.3f}",
                "recall": f"{found.recall:.3f}",
                "discriminator, %": f"{100 * found.discriminator:.1f}",
                "nearest training image": f"{found.nearest:.2f}",
            }
            for name, found in self.scores.items()
        ]

    def text(self) -> str:
        """Plain text, a row per VAE."""
        rows = self.rows()
        return text_table([list(rows[0]), *(list(row.values()) for row in rows)])

    def save(self, path: Path) -> None:
        """JSON with the table's rows, every number, and the command and commit that made them."""
        numbers: dict[str, Any] = {name: asdict(found) for name, found in self.scores.items()}
        write_json(path, {"provenance": provenance(), "about": self.about, "rows": self.rows(), "scores": numbers})


def measure_samples(
    runs: Sequence[Trained], judge: str, count: int, temperature: float, seed: int, root: str | None
) -> SampleTable:
    """Scores of samples from each VAE's prior, on as many test images of the first one's data set.

    Args:
        judge: an encoder whose backbone gives the features, or ``lenet``, one trained on the training images' classes.
    """
    dataset = runs[0].dataset(root=root)
    train, test = dataset.load("train"), dataset.load("test")
    if not 100 <= count <= len(test):
        raise InputError(f"--count must be between 100 and the {len(test):,} test images; received {count}.")
    features = _features(judge, train, seed)
    real = _some(test, count, seed)
    seen = _some(train, min(20_000, len(train)), seed)
    of_real = _each(features, real)
    found, first = SampleTable(), None
    for trained in runs:
        drawn = Synthesis(trained.vae(), temperature, seed).samples(count).images[0]
        if drawn.shape != real.shape:
            raise InputError(
                f"{trained.name} draws images {list(drawn.shape[1:])}; {test.dataset} has {list(real.shape[1:])}."
            )
        of_drawn = _each(features, drawn)
        precise, recalled = precision_and_recall(of_real, of_drawn)
        found.scores[Path(trained.name).name] = SampleScores(
            bootstrap(frechet_distance, of_real, of_drawn, seed),
            bootstrap(kernel_distance, of_real, of_drawn, seed, draws=50),
            None if first is None else paired_bootstrap(frechet_distance, of_real, first, of_drawn, seed),
            precise,
            recalled,
            discriminator_accuracy(real, drawn, seed),
            float(nearest(drawn[:500], seen)[0].median()),
        )
        first = of_drawn if first is None else first
    own = float(nearest(real[:500], seen)[0].median())
    found.about = (
        f"{count:,} samples at temperature {temperature:g} against as many test images of {test.dataset}; features of "
        f"{judge if judge != LENET else 'a LeNet trained on the training images'}; in brackets 95 % by bootstrap over "
        "images. Discriminator: held-out accuracy of a LeNet that was trained to tell real from drawn. Nearest "
        f"training image: median distance of pixels, {own:.2f} for real test images."
    )
    return found


def discriminator_accuracy(real: Tensor, drawn: Tensor, seed: int = 0) -> float:
    """Held-out accuracy of a LeNet trained on half of the real and half of the drawn images, as 8-bit images."""
    pixels = [(255 * images).round().byte() for images in (real, drawn)]
    half = len(real) // 2
    learnt = torch.cat([images[:half] for images in pixels])
    held = torch.cat([images[half:] for images in pixels])
    label = torch.arange(2).repeat_interleave(half)
    truth = torch.arange(2).repeat_interleave(len(real) - half)
    judge = train_lenet(learnt, {"drawn": label}, {"drawn": 2}, seed, epochs=8)
    return float((judge.verdicts(to_float(held))["drawn"] == truth).double().mean())


def _features(judge: str, train: ImageBank, seed: int) -> Features:
    if judge == LENET:
        rows = torch.as_tensor(train.images)
        return train_lenet(rows, {"class": train.labels.cpu()}, {"class": train.num_classes}, seed).features
    return zoo.open(judge).encoder(["backbone"])


@torch.no_grad()
def _each(features: Features, images: Tensor) -> Tensor:
    return torch.cat([features(part) for part in images.split(500)])


def _some(bank: ImageBank, count: int, seed: int) -> Tensor:
    """float32 ``[count, C, H, W]``, drawn without replacement."""
    generator = torch.Generator().manual_seed(seed_for(seed, 9))
    rows = torch.randperm(len(bank), generator=generator)[:count]
    return to_float(torch.as_tensor(bank.images[rows]))
