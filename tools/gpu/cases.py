"""Every learner and every guidance as small cases, for the parts that compare or count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from episodes import (
    AugmentConfig,
    EpisodeBatch,
    Episodes,
    EpisodeSampler,
    EpisodeShape,
    ImageBank,
    make_batch,
    to_float,
    warp,
)
from metagvae.config.sections import EncoderSection, VAESection
from metagvae.guidance import Views
from metagvae.learners import make_learner
from metagvae.zoo.build import attribute_sizes, new_encoder, new_vae

WARPS = {"rotation": 20.0, "scale": 0.2, "shear": 0.2, "translation": 0.08, "elastic": 0.05, "stroke": 0.5}


@dataclass(frozen=True)
class LearnerCase:
    """A learner of some options around an encoder of some norm policy."""

    learner: str
    norm: str = "running"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " ".join([self.learner, self.norm, *(f"{key}={value}" for key, value in self.options.items())])


LEARNERS = (
    LearnerCase("prototypes"),
    LearnerCase("prototypes", options={"roles": "every", "normalise": 0.5, "scale": 3.0}),
    LearnerCase("prototypes", "group", {"distance": "cosine"}),
    LearnerCase("prototypes", "support"),
    LearnerCase("prototypes", "transductive"),
    LearnerCase("ridge"),
    LearnerCase("maml", "support"),
    LearnerCase("maml", "transductive", {"inner_steps": 5}),
    LearnerCase("maml", "support", {"batching": "loop"}),
    LearnerCase("maml", "support", {"first_order": True}),
    LearnerCase("anil"),
    LearnerCase("statistician"),
    LearnerCase("statistician", options={"excitation": 10.0, "inhibition": 1.0, "mixup": 0.4}),
)


@dataclass(frozen=True)
class GuidanceCase:
    """A list of guidances and how many warps of a picture they see."""

    name: str
    guidance: tuple[dict[str, Any], ...]
    views: int = 1
    likelihood: str = "bernoulli"

    @property
    def section(self) -> VAESection:
        return VAESection(guidance=list(self.guidance), likelihood=self.likelihood)


GUIDANCES = (
    GuidanceCase("plain VAE", ()),
    GuidanceCase("plain VAE, gaussian", (), likelihood="gaussian"),
    GuidanceCase("deformable_pca", ({"name": "deformable_pca", "weight": 60.0},)),
    GuidanceCase("excitation_inhibition", ({"name": "excitation_inhibition", "attributes": {"class": 8}},)),
    GuidanceCase(
        "excitation_inhibition adversarial",
        ({"name": "excitation_inhibition", "attributes": {"class": 8}, "form": "adversarial"},),
    ),
    GuidanceCase("warp_pairs", ({"name": "warp_pairs", "inhibition": 100.0},), views=4),
    GuidanceCase("warp_pairs cosine", ({"name": "warp_pairs", "distance": "cosine", "scale": 10.0},), views=4),
)


@dataclass
class Problem:
    """A module and the loss terms that it gives on pictures at hand, on whatever device both are put."""

    module: nn.Module
    terms: Callable[[nn.Module, Callable[[Tensor], Tensor]], dict[str, Tensor]]


def learner_problem(case: LearnerCase, bank: ImageBank, width: int, tasks: int) -> Problem:
    """The learner's loss on the first episodes of the stream."""
    torch.manual_seed(0)
    section = EncoderSection(width=width, norm=case.norm, features=["backbone"])
    learner = make_learner(case.learner, new_encoder(section, VAESection(), bank, 0), 5, **case.options)
    batch = make_batch(bank, EpisodeSampler(bank, Episodes(EpisodeShape(5, 1, 5))).span(0, tasks))

    def terms(module: nn.Module, put: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        placed = EpisodeBatch(put(batch.images), batch.shot, put(batch.classes), put(batch.indices))
        return {"episodes": module(placed)[0]}

    return Problem(learner.train(), terms)


def guidance_problem(case: GuidanceCase, bank: ImageBank, width: int, pictures: int) -> Problem:
    """The VAE's and the guidance's losses on the first pictures of the bank's classes."""
    encoder = new_encoder(EncoderSection(width=width, latent=32), case.section, bank, 0)
    vae = new_vae(encoder, case.section, attribute_sizes(bank))
    chosen = torch.arange(pictures // case.views) * 7 % len(bank)
    classes = bank.labels[chosen]
    warped = warp(
        to_float(bank.gather(chosen.repeat_interleave(case.views))),
        AugmentConfig(**WARPS),
        torch.Generator().manual_seed(0),
    )
    labels = {"class": classes.repeat_interleave(case.views)}

    def terms(module: nn.Module, put: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        views = Views(case.views, put(warped.parameters)) if case.views > 1 else None
        known = {name: put(values) for name, values in labels.items()}
        return module.losses(put(warped.images), known, views=views)  # type: ignore[operator]

    return Problem(vae.train(), terms)
