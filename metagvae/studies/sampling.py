"""The work of `metagvae sampling`: samples of several VAEs against real test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from episodes import ImageBank, InputError, to_float
from episodes.counter_rng import check_seed, seed_for
from metagvae import zoo
from metagvae.evaluation.lenet import LENET, class_features, train_lenet
from metagvae.evaluation.over_seeds import seed_named, stem
from metagvae.evaluation.sample_quality import (
    DRAWS,
    Estimate,
    bootstrap,
    frechet_distance,
    frechet_floor,
    kernel_distance,
    nearest,
    paired_bootstrap,
    precision_and_recall,
)
from metagvae.evaluation.text_table import text_table
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.studies.naming import short_names
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.synthesis import Synthesis
from metagvae.zoo.build import check_pictures
from metagvae.zoo.leakage import refuse_trained_images
from metagvae.zoo.trained import Trained

Features = Callable[[Tensor], Tensor]
Measure = Callable[[Tensor, Tensor], float]
KERNEL_DRAWS = 50  # of its bootstrap; each is three matrices of all pairs


@dataclass(frozen=True)
class SampleScores:
    """Of one VAE's samples.

    Args:
        frechet, kernel: distances to real test images in the features.
        other: the VAE that it is compared with; None for that one.
        against, kernel_against: both distances less those of ``other``, on the same draws of images.
        precision, recall: shares in [0, 1].
        discriminator: held-out accuracy of a network trained to tell real images from drawn ones.
        nearest: median distance of a sample to the nearest training image.
        rebuilt: squared error of the real images rebuilt from their posterior means, summed over pixels.
    """

    frechet: Estimate
    kernel: Estimate
    other: str | None
    against: Estimate | None
    kernel_against: Estimate | None
    precision: float
    recall: float
    discriminator: float
    nearest: float
    rebuilt: float


@dataclass
class SampleTable:
    """All that was measured, by the name of the VAE."""

    scores: dict[str, SampleScores] = field(default_factory=dict)
    about: str = ""

    def rows(self) -> list[dict[str, str]]:
        """Rows of text, a table's cells by column."""
        first = stem(next(iter(self.scores), ""))
        return [
            {
                "VAE": name,
                "Frechet distance": str(found.frechet),
                f"less {first}'s": "–" if found.against is None else str(found.against),
                "kernel distance": str(found.kernel),
                f"kernel less {first}'s": "–" if found.kernel_against is None else str(found.kernel_against),
                "precision": f"{found.precision:.3f}",
                "recall": f"{found.recall:.3f}",
                "discriminator, %": f"{100 * found.discriminator:.1f}",
                "nearest training image": f"{found.nearest:.2f}",
                "rebuilt, squared error": f"{found.rebuilt:.2f}",
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


@dataclass(frozen=True)
class Samples:
    """Samples to draw, and the images and features that they are compared in.

    Args:
        judge: an encoder whose backbone gives the features; lenet trains one on the training images' classes (28 x 28).
        count: samples of each, and real images.
        temperature: divides the logits before the sigmoid; below 1 draws harder edges.
        split: test | validation; of the real images.
        seed: of all draws.

    Raises:
        InputError: if a number is out of its range.
    """

    judge: str = "warp-protonet-omniglot"
    count: int = 2000
    temperature: float = 1.0
    split: str = "test"
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed, "--seed")
        if self.split not in ("test", "validation"):
            raise InputError(f"--split must be 'test' or 'validation'; received {self.split!r}.")


def reference_of(name: str, names: Sequence[str]) -> str:
    """The run that another is compared with: the first one, or its like of the same training seed."""
    seed, like = seed_named(name), stem(names[0])
    return next((other for other in names if seed == seed_named(other) and stem(other) == like), names[0])


def measure_samples(runs: Sequence[Trained], samples: Samples, root: str | None) -> SampleTable:
    """Scores of samples from each VAE's prior, on as many images of the first one's data set.

    Runs named NAME-seedN are compared with the first run's like of the same seed if there is one, all others with the
    first run.

    Raises:
        InputError: before any measuring, if a run draws other images or was trained on some of these, or count is out
            of range.
    """
    dataset, count, seed = runs[0].dataset(root=root), samples.count, samples.seed
    train, bank = dataset.load("train"), dataset.load(samples.split)
    if not 100 <= count <= len(bank):
        raise InputError(f"--count must be between 100 and the {len(bank):,} {samples.split} images; received {count}.")
    vaes = [_vae(trained, bank) for trained in runs]
    features = _features(samples.judge, train, seed)
    real = _some(bank, count, seed)
    seen = _some(train, min(20_000, len(train)), seed)
    of_real = _each(features, real)
    short = short_names([str(trained.name) for trained in runs])
    names = [short[str(trained.name)] for trained in runs]
    images = {
        name: Synthesis(vae, samples.temperature, seed).samples(count).images[0]
        for name, vae in zip(names, vaes, strict=True)
    }
    of_drawn = {name: _each(features, drawn) for name, drawn in images.items()}  # a run may be named before its like
    found = SampleTable()
    for name, vae in zip(names, vaes, strict=True):
        drawn, own, other = images[name], of_drawn[name], reference_of(name, names)
        precise, recalled = precision_and_recall(of_real, own)
        found.scores[name] = SampleScores(
            frechet=bootstrap(frechet_distance, of_real, own, seed),
            kernel=bootstrap(kernel_distance, of_real, own, seed, KERNEL_DRAWS),
            other=None if other == name else other,
            against=_against(frechet_distance, DRAWS, of_real, of_drawn, (other, name), seed),
            kernel_against=_against(kernel_distance, KERNEL_DRAWS, of_real, of_drawn, (other, name), seed),
            precision=precise,
            recall=recalled,
            discriminator=discriminator_accuracy(real, drawn, seed),
            nearest=float(nearest(drawn[:500], seen)[0].median()),
            rebuilt=rebuilding_error(vae, real),
        )
    own_distance = float(nearest(real[:500], seen)[0].median())
    found.about = (
        f"{count:,} samples at temperature {samples.temperature:g} against as many {samples.split} images of "
        f"{bank.dataset}; features of "
        f"{samples.judge if samples.judge != LENET else 'a LeNet trained on the training images'}; in brackets 95 % by "
        f"bootstrap over images. Of each Frechet distance {frechet_floor(of_real, count, seed):.2g} is of the count "
        "alone: so far apart are two samples of one normal density. "
        "Discriminator: held-out accuracy of a LeNet that was trained to tell real from drawn. "
        f"Nearest training image: median distance of pixels, {own_distance:.2f} for real {samples.split} images. "
        "Rebuilt: real images from their posterior means, error summed over pixels."
    )
    return found


def _vae(trained: Trained, bank: ImageBank) -> GuidedVAE:
    """A run's VAE, which must draw images like the bank's and not have been trained on these."""
    vae = trained.vae()
    check_pictures(vae.encoder, bank, trained.name)
    refuse_trained_images(trained, bank)
    return vae


def _against(
    measure: Measure, draws: int, real: Tensor, drawn: Mapping[str, Tensor], pair: tuple[str, str], seed: int
) -> Estimate | None:
    """How much greater a distance is for the second of a pair than for the first; None of one with itself."""
    first, second = pair
    return None if first == second else paired_bootstrap(measure, real, drawn[first], drawn[second], seed, draws)


@torch.no_grad()
def rebuilding_error(vae: GuidedVAE, images: Tensor) -> float:
    """Squared error of images ``[B, C, H, W]`` rebuilt from posterior means: summed over pixels, mean over images."""
    parts = [(vae.reconstruct(part) - part).square().flatten(1).sum(1) for part in images.split(500)]
    return float(torch.cat(parts).double().mean())


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
        return class_features(train, seed)
    return zoo.open(judge).encoder(["backbone"])


@torch.no_grad()
def _each(features: Features, images: Tensor) -> Tensor:
    return torch.cat([features(part) for part in images.split(500)])


def _some(bank: ImageBank, count: int, seed: int) -> Tensor:
    """float32 ``[count, C, H, W]``, drawn without replacement."""
    generator = torch.Generator().manual_seed(seed_for(seed, 9))
    rows = torch.randperm(len(bank), generator=generator)[:count]
    return to_float(torch.as_tensor(bank.images[rows]))
