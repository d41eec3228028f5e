"""The work of `metagvae likelihood`: log p(x) of images or texts under runs' VAEs, and how they use their latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from episodes import ImageBank, InputError, to_float
from episodes.counter_rng import check_seed
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.evaluation.class_interval import signed
from metagvae.evaluation.latent_use import active_units, mutual_information
from metagvae.evaluation.log_likelihood import (
    Estimates,
    annealed_sampling,
    evidence_bound,
    fitted_proposal,
    importance_sampling,
)
from metagvae.evaluation.text_table import text_table
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.studies.naming import short_names
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.likelihoods import LEVELS
from metagvae.zoo.build import check_pictures
from metagvae.zoo.leakage import refuse_trained_images
from metagvae.zoo.trained import Trained

_BLOCK = 16  # images whose chains run together
_MOST = 10_000  # images that the use of the latent is told from


@dataclass(frozen=True)
class Sampling:
    """Images, or texts, and draws that a likelihood is estimated from.

    Args:
        images: how many, evenly spread over the split; of texts likewise.
        samples: draws per image for importance sampling.
        chains: Langevin chains per image that the proposal is fitted to.
        steps: moves of a chain in each of three rounds.
        annealed: of how many images annealed importance sampling gives a second opinion; 0 for none.
        temperatures: of the annealing.
        split: test | validation | train.
        binarise: take pixels at or above half as 1, others as 0; leave out to do so for a Bernoulli likelihood, of
            which grey pixels have no density.
        seed: of all draws; what an image gets does not depend on the others.

    Raises:
        InputError: if a number is out of its range.
    """

    images: int = 100
    samples: int = 1000
    chains: int = 64
    steps: int = 40
    annealed: int = 10
    temperatures: int = 400
    split: str = "test"
    binarise: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed, "--seed")
        for name, least in (("images", 2), ("samples", 2), ("chains", 4), ("steps", 2), ("annealed", 0)):
            if not least <= getattr(self, name) <= 10**6:
                raise InputError(f"--{name} must be between {least} and 1,000,000; received {getattr(self, name)}.")
        if not 1 <= self.temperatures <= 10**6:
            raise InputError(f"--temperatures must be between 1 and 1,000,000; received {self.temperatures}.")

    def binarises(self, likelihood: str) -> bool:
        """Whether a VAE of this likelihood is shown images of 0 and 1 alone."""
        wanted = likelihood == "bernoulli" if self.binarise is None else self.binarise
        return wanted and likelihood != "categorical"


@dataclass
class Likelihood:
    """One run's figures, in nats unless said.

    Attributes:
        log_p: per image, by importance sampling; ``error`` is its standard error over images, ``sampling_error`` the
            part of it that comes from the draws.
        elbo: mean over the same images, of the encoder's own posterior.
        effective: effective sample sizes, per image.
        annealed: per image, of the first images; the second opinion.
        bits: per dimension of an image, per character of a text.
        active: how many units are active, by the group they belong to.
        information: nats between image and latent, at most ``information_limit``.
    """

    run: str
    log_p: list[float]
    error: float
    sampling_error: float
    elbo: float
    effective: list[float]
    annealed: list[float]
    bits: float
    active: dict[str, int]
    latent: int
    information: float
    information_limit: float
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return math.fsum(self.log_p) / len(self.log_p)


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    rows = torch.tensor(values, dtype=torch.float64)
    return float(rows.mean()), float(rows.std() / math.sqrt(len(rows)))


@torch.no_grad()
def estimate(vae: GuidedVAE, images: Tensor, sampling: Sampling) -> tuple[Estimates, Tensor, Tensor]:
    """Importance-sampled log p(x) ``[B]`` of images, the annealed one of the first of them, and their ELBO.

    Args:
        images: ``[B, C, H, W]`` in [0, 1], binary where the likelihood is a Bernoulli's and is to be one.
    """
    sampled, annealed, bounds = [], [], []
    for start in range(0, len(images), _BLOCK):
        some = images[start : start + _BLOCK]
        proposal = fitted_proposal(vae, some, sampling.chains, sampling.steps, sampling.seed)
        sampled.append(importance_sampling(vae, some, proposal, sampling.samples, sampling.seed))
        bounds.append(evidence_bound(vae, some, 16, sampling.seed))
        left = min(len(some), sampling.annealed - start)
        if left > 0:
            part = type(proposal)(proposal.location[:left], proposal.factor[:left])
            more = annealed_sampling(vae, some[:left], part, 8, sampling.temperatures, sampling.seed)
            annealed.append(more.log_p)
    together = Estimates(*(torch.cat(rows) for rows in zip(*(vars(s).values() for s in sampled), strict=True)))
    return together, torch.cat(annealed) if annealed else together.log_p[:0], torch.cat(bounds)


@torch.no_grad()
def _latent_use(vae: GuidedVAE, bank: ImageBank, device: Device) -> tuple[dict[str, int], float, float]:
    """Active units by group, nats between image and latent, and the most these could be, of images as they are."""
    chosen = torch.linspace(0, len(bank) - 1, min(len(bank), _MOST)).long()
    means, own = [], []
    for rows in chosen.split(512):
        images = to_float(bank.images[rows].to(device.device))
        own.append(vae.recognition(images))
        # chains that begin at random end apart whatever the image: what they have of it is what the encoder learnt
        means.append(vae.infer(images).mean if vae.inference.has_density else own[-1].mean)
    used = active_units(torch.cat(means))
    groups = {name: int(used[units].sum()) for name, units in vae.encoder.units.items()}
    mean, log_var = torch.cat([p.mean for p in own]), torch.cat([p.log_var for p in own])
    return groups, mutual_information(mean, log_var), math.log(len(chosen))


def measure(trained: Trained, name: str, bank: ImageBank, sampling: Sampling, device: Device) -> Likelihood:
    """The figures of one run, by its name in results, on evenly spread images of a bank."""
    vae = trained.vae()
    device.place(vae)
    chosen = torch.linspace(0, len(bank) - 1, min(len(bank), sampling.images)).long()
    images = to_float(bank.images[chosen].to(device.device))
    if sampling.binarises(vae.likelihood):
        images = (images >= 0.5).to(images)
    found, annealed, bounds = estimate(vae, images, sampling)
    groups, information, limit = _latent_use(vae, bank, device)
    mean, error = _mean_and_error(found.log_p.tolist())
    dimensions = math.prod(images.shape[1:])
    levels = 0.0 if vae.likelihood != "gaussian" else math.log(LEVELS)  # a density's mass on one grey value
    return Likelihood(
        run=name,
        log_p=[round(value, 3) for value in found.log_p.tolist()],
        error=error,
        sampling_error=float(found.error.square().sum().sqrt() / len(images)),
        elbo=float(bounds.mean()),
        effective=[round(value, 1) for value in found.effective.tolist()],
        annealed=[round(value, 3) for value in annealed.tolist()],
        bits=(levels - mean / dimensions) / math.log(2),
        active=groups,
        latent=vae.encoder.config.latent,
        information=information,
        information_limit=limit,
        about={"likelihood": vae.likelihood, "method": trained.card.method, "trained_on": trained.card.trained_on},
    )


@dataclass
class LikelihoodTable:
    """All runs' figures on the same images."""

    rows: list[Likelihood]
    sampling: Sampling
    data: str

    @property
    def of_texts(self) -> bool:
        """Whether the runs are of texts, whose dimensions are characters."""
        return all(row.about["likelihood"] == "categorical" for row in self.rows)

    def plain(self) -> list[dict[str, str]]:
        """Rows of text, a table's cells by column."""
        first, cells = self.rows[0], []
        for row in self.rows:
            gap, error = _mean_and_error([a - b for a, b in zip(row.log_p, first.log_p, strict=True)])
            paired = row is not first and row.about["likelihood"] == first.about["likelihood"]
            ais = row.annealed
            second, spread = _mean_and_error([a - b for a, b in zip(ais, row.log_p, strict=False)]) if ais else (0, 0)
            effective = sorted(row.effective)
            cells.append(
                {
                    "run": row.run,
                    "log p(x), nats": f"{row.mean:.2f} ± {1.96 * row.error:.2f}",
                    "less the first's": f"{signed(gap)} ± {1.96 * error:.2f}" if paired else "–",
                    "error of the draws": f"{row.sampling_error:.3f}",
                    f"bits per {'character' if self.of_texts else 'dimension'}": f"{row.bits:.4f}",
                    "ELBO": f"{row.elbo:.2f}",
                    "annealed less sampled": f"{signed(second)} ± {1.96 * spread:.2f}" if len(ais) > 1 else "–",
                    "effective samples, median (least)": f"{effective[len(effective) // 2]:.0f} ({effective[0]:.0f})",
                    "active units": f"{sum(row.active.values())} of {row.latent}",
                    "information, nats": f"{row.information:.2f} of at most {row.information_limit:.2f}",
                }
            )
        return cells

    def table(self) -> str:
        """Plain text, one row per run."""
        rows = self.plain()
        return f"{self.about()}\n\n" + text_table([list(rows[0]), *(list(row.values()) for row in rows)])

    def about(self) -> str:
        """A sentence that says how it was measured."""
        s = self.sampling
        kinds = sorted({row.about["likelihood"] for row in self.rows})
        binary = [kind for kind in kinds if s.binarises(kind)]
        shown = ", pixels at or above half taken as 1, others as 0" if binary else ""
        if binary and binary != kinds:
            shown += f" for the likelihood {' and '.join(binary)}"
        thing, annealed = "text" if self.of_texts else "image", len(self.rows[0].annealed)
        grey = " as they are, in grey" if binary else ""
        note = f" Active units and information are of up to {_MOST:,} {thing}s{grey}."
        if "bernoulli" in kinds and "bernoulli" not in binary:
            note += " A Bernoulli of grey pixels is no density: its figure is a cross entropy."
        if len(kinds) > 1:
            note += f" The likelihoods {' and '.join(kinds)} are of different things, so their figures are not paired."
        second = f"; annealing over {s.temperatures} temperatures on {annealed} {thing}s" if annealed else ""
        return (
            f"{len(self.rows[0].log_p)} {thing}s of {self.data}, {s.split} split, evenly spread{shown}; "
            f"{s.samples:,} draws per {thing} from a Student density fitted to {s.chains} Langevin chains; ± 1.96 "
            f"standard errors over {thing}s{second}.{note}"
        )

    def save(self, path: Path) -> None:
        """JSON with the rows of a table, every number, and the command and commit that made them."""
        write_json(
            path,
            {
                "provenance": provenance(),
                "rows": self.plain(),
                "about": self.about(),
                "sampling": asdict(self.sampling),
                "runs": [{**asdict(row), "log_likelihood": row.mean} for row in self.rows],
            },
        )


def likelihoods(runs: Sequence[str], bank: ImageBank, sampling: Sampling, device: Device) -> LikelihoodTable:
    """The figures of every run on the same images.

    Raises:
        InputError: before any sampling, if one is no run with a decoder, takes other images, or was trained on some of
            these (a training split asked for as such may be).
    """
    opened, names = {run: zoo.open(run) for run in runs}, short_names(runs)
    for run, trained in opened.items():
        check_pictures(trained.vae().encoder, bank, run)
        refuse_trained_images(trained, bank)
    rows = [measure(trained, names[run], bank, sampling, device) for run, trained in opened.items()]
    return LikelihoodTable(rows, sampling, bank.dataset)
