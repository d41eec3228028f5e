"""The work of `metagvae refine`: what K steps on log p(x, z) at test time do to a run's VAE and its features."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from episodes import ImageBank, InputError, to_float
from episodes.datasets import Dataset
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.config.parse import section
from metagvae.config.sections import VAESection
from metagvae.evaluation.class_interval import signed
from metagvae.evaluation.text_table import text_table
from metagvae.guidance import GuidanceContext
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.studies.compare import compare
from metagvae.studies.comparison import Comparison
from metagvae.studies.protocol import Head, Protocol
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.inference import INFERENCES, Amortised, ShortRun
from metagvae.vae.inference.image_noise import image_keys, normal_noise
from metagvae.vae.refined_encoder import RefinedEncoder, refined
from metagvae.zoo.build import check_pictures
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.leakage import refuse_trained_classes
from metagvae.zoo.load import save_encoder
from metagvae.zoo.trained import Trained

_DRAWS = 4  # of the posterior, per image


@dataclass(frozen=True)
class Bound:
    """Means over images of the two terms of the ELBO, in nats: their sum is what refinement is to lower.

    An answer that is a point, of chains that start at the prior, has no KL: it and the sum are NaN.
    """

    reconstruction: float
    kl: float

    @property
    def total(self) -> float:
        return self.reconstruction + self.kl


def refined_run(run: str | Trained, refinement: dict[str, Any]) -> RefinedEncoder:
    """The encoder of a run, its decoder with it, refined as `ShortRun` takes it; none in front of 0 steps.

    Raises:
        InputError: if it is no run with a decoder, or an option is not allowed.
    """
    trained = zoo.open(run)
    chosen = section(VAESection, trained.config, "vae", trained.name)
    return refined(trained.vae(), chosen.decoder, chosen.decoder_width, refinement)


def save_refined(run: str | Trained, refinement: dict[str, Any], folder: str | Path) -> None:
    """Writes the refined encoder of a run as an encoder folder; its card says what was done.

    Raises:
        InputError: if it is no run with a decoder, or the folder cannot be written.
    """
    trained = zoo.open(run)
    save_encoder(refined_run(trained, refinement), folder, refined_card(trained.card, refinement, Path(folder).name))


def refined_card(card: EncoderCard, refinement: dict[str, Any], name: str) -> EncoderCard:
    """The card of a refined encoder; what was fitted to the features of before is not of its own."""
    options = ", ".join(f"{option} {value}" for option, value in refinement.items())
    details = {key: value for key, value in card.details.items() if key not in ("calibration", "sets")}
    return replace(card, name=name, method=f"{card.method}; refined by short-run inference, {options}", details=details)


@torch.no_grad()
def bound(vae: GuidedVAE, bank: ImageBank, count: int, device: Device) -> Bound:
    """Reconstruction error and KL of evenly spread images, by the same noise whatever the inference."""
    device.place(vae)
    chosen = torch.linspace(0, len(bank) - 1, min(len(bank), count)).long()
    sums = torch.zeros(2, dtype=torch.float64)
    for rows in chosen.split(256):
        images = to_float(bank.images[rows].to(device.device))
        posterior = vae.infer(images)
        keys = image_keys(images)
        for draw in range(_DRAWS):
            noise = normal_noise(keys, draw, posterior.mean.shape[1]).to(posterior.mean)
            z = posterior.mean + noise * (0.5 * posterior.log_var).exp()
            given = vae.log_likelihood(images, z)
            sums[0] -= float(given.double().sum()) / _DRAWS
        sums[1] += float(vae.kl(posterior).double().sum())
    return Bound(*(sums / len(chosen)).tolist())


@dataclass
class RefinementCurve:
    """The bound after each number of steps, and the few-shot errors on the same episodes."""

    steps: list[int]
    bounds: list[Bound]
    comparison: Comparison
    refinement: dict[str, Any]
    images: int
    run: str

    def plain(self) -> list[dict[str, str]]:
        """Rows of text, a table's cells by column."""
        rows, first = [], self.bounds[0].total
        results, gaps = self.comparison.results, self.comparison.differences
        for steps, found in zip(self.steps, self.bounds, strict=True):
            cells = {
                "steps": str(steps),
                "reconstruction, nats": f"{found.reconstruction:.2f}",
                "KL, nats": _said(found.kl, ".2f"),
                "sum": _said(found.total, ".2f"),
                "change": f"{signed(change)} %" if math.isfinite(change := 100 * (found.total / first - 1)) else "–",
            }
            for r in results:
                if r.method == _name(steps):
                    shape = f"{r.way}w {r.shot}s"
                    cells[f"{shape} error, %"] = f"{100 * r.error:.2f} ± {100 * r.half_width:.2f}"
                    gap = [d for d in gaps if (d.other, d.way, d.shot) == (r.method, r.way, r.shot)]
                    text = f"{signed(100 * gap[0].difference)} ± {100 * gap[0].half_width:.2f}" if gap else "–"
                    cells[f"{shape} paired"] = text
            rows.append(cells)
        return rows

    def about(self) -> str:
        """A sentence that says how it was measured."""
        r = self.comparison.results[0]
        options = ", ".join(f"{name} {value}" for name, value in self.refinement.items())
        return (
            f"{self.run}, {r.dataset}, {r.split} split: the two terms on {self.images:,} images, {r.episodes:,} "
            f"episodes of {r.query} queries per class, seed {r.seed}, features {r.features}; paired differences from "
            f"{self.steps[0]} steps, in points, 95 %; {options}."
        )

    def table(self) -> str:
        """Plain text, one row per number of steps."""
        rows = self.plain()
        return f"{self.about()}\n\n" + text_table([list(rows[0]), *(list(row.values()) for row in rows)])

    def save(self, path: Path) -> None:
        """JSON with the rows of a table, every number, and the command and commit that made them."""
        bounds = [{"steps": k, **asdict(b), "sum": b.total} for k, b in zip(self.steps, self.bounds, strict=True)]
        content = {
            "provenance": provenance(),
            "rows": self.plain(),
            "about": self.about(),
            "bounds": bounds,
            "refinement": self.refinement,
            "errors": [r.to_dict() for r in self.comparison.results],
            "differences": [d.to_dict() for d in self.comparison.differences],
        }
        write_json(path, content)


def _name(steps: int) -> str:
    return f"steps-{steps}"


def _said(number: float, digits: str) -> str:
    """A number as text; a dash for one that does not exist."""
    return f"{number:{digits}}" if math.isfinite(number) else "–"


def _check(steps: Sequence[int], refinement: dict[str, Any], images: int, context: GuidanceContext) -> None:
    """Raises `InputError` if a number or an option is not allowed."""
    if not steps or min(steps) < 0 or len(set(steps)) < len(steps):
        raise InputError(f"--steps takes different numbers of 0 or more; received {list(steps)}.")
    if images < 1:
        raise InputError(f"--images must be 1 or more; received {images}.")
    if "steps" in refinement:
        raise InputError("--options takes no steps; give the numbers of steps to measure as --steps.")
    options = {**refinement, "steps": max(1, *steps)}
    INFERENCES.checked(ShortRun.name, options, "--options: ")(context, **options)


def refinement_curve(
    run: str,
    steps: Sequence[int],
    refinement: dict[str, Any],
    dataset: Dataset,
    protocol: Protocol,
    features: list[str] | None,
    images: int,
    device: Device,
) -> RefinementCurve:
    """The terms of the bound and the few-shot errors of a run's encoder after each number of steps.

    Args:
        steps: in the order of the rows; the first is what the others are compared with, 0 for the encoder alone.
        refinement: further options of `ShortRun`, its steps not among them.
        images: how many the bound is measured on.

    Raises:
        InputError: before any measuring, if the run, the options or the data cannot be had.
    """
    trained = zoo.open(run)
    vae = trained.vae()
    shape = vae.encoder.config
    context = GuidanceContext(shape.channels, shape.size, shape.units)
    _check(steps, refinement, images, context)
    protocol.check(dataset)
    bank = dataset.load(protocol.split)
    refuse_trained_classes(run, bank)  # by its own name: what is compared lies in a temporary folder
    check_pictures(trained.encoder(features), bank, run)
    with tempfile.TemporaryDirectory() as place:
        folders = [str(Path(place) / _name(k)) for k in steps]
        for k, folder in zip(steps, folders, strict=True):
            if k:
                save_refined(trained, {**refinement, "steps": k}, folder)
            else:
                save_encoder(trained.encoder(), folder, trained.card)
        # first, since it refuses episodes that the images cannot give
        found = compare(dataset, folders, protocol=protocol, head=Head(features=features), device=device, progress=True)
    bounds = []
    for k in steps:
        vae.inference = ShortRun(context, **{**refinement, "steps": k}) if k else Amortised(context)
        bounds.append(bound(vae, bank, images, device))
    return RefinementCurve(list(steps), bounds, found, refinement, min(images, len(bank)), Path(run).name)
