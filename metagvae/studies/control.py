"""The work of `metagvae control`: whether each named unit does what its name says, and nothing else, on test images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from episodes import EpisodeBatch, Episodes, EpisodeSampler, EpisodeShape, ImageBank, InputError, make_batch, to_float
from metagvae.evaluation.pose import POSES, pose
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.synthesis import Synthesis, unit_names

VALUES = torch.linspace(-2, 2, 9)
PAIRS = 600  # of drawings of one character, that say how much poses differ by themselves
CHUNK = 250  # images at a time


@dataclass(frozen=True)
class UnitControl:
    """Effect of one unit, moved from -2 to 2, on the pose of the drawn image, measured by moments.

    Args:
        pose: the pose that the unit is named after, or that it moves best.
        unit: its number.
        rank: Spearman's correlation of the unit's value with the pose, averaged over images.
        linearity: squared Pearson's correlation, averaged over images.
        low, high: the pose at -2 and at 2, averaged over images, in ``scale``'s units.
        others: what each other pose moves, relative to this one, both in deviations of test images.
    """

    pose: str
    unit: int
    rank: float
    linearity: float
    low: float
    high: float
    others: dict[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """The other pose that moves most, and how much."""
        name = max(self.others, key=lambda other: self.others[other])
        return name, self.others[name]


def pose_spread(bank: ImageBank, seed: int = 0) -> Tensor:
    """Robust standard deviation of each pose over pairs of drawings of one class, ``[6]``.

    From the middle half of the differences, over the root of two: of one drawing, not of a difference of two.
    """
    batch = episode_images(bank, way=2, shot=1, query=1, count=PAIRS // 2, seed=seed)
    first, second = batch.images[:, :, 0].flatten(0, 1), batch.images[:, :, 1].flatten(0, 1)
    found = pose(first, second)
    found = found[torch.isfinite(found).all(1)]
    quarter = torch.quantile(found, torch.tensor([0.25, 0.75]), dim=0)
    spread: Tensor = (quarter[1] - quarter[0]) / 1.349 / 2**0.5
    return spread


@torch.no_grad()
def moved_poses(vae: GuidedVAE, latents: Tensor, unit: int) -> Tensor:
    """Poses ``[images, values, 6]`` as one unit takes each of `VALUES`, against the same latent at rest.

    At rest the geometry units are zero, as the guidance's warp is the identity there; without such units, ``unit`` is.
    """
    rest = latents.clone()
    rest[:, vae.encoder.units.get("geometry", [unit])] = 0
    places = rest[:, None].repeat(1, len(VALUES), 1)
    places[:, :, unit] = VALUES.to(places)
    synthesis = Synthesis(vae)
    references = synthesis.draw(rest[:, None]).images.expand(-1, len(VALUES), -1, -1, -1)
    found = pose(synthesis.draw(places).images.flatten(0, 1), references.flatten(0, 1))
    return found.view(*places.shape[:2], -1)


def measured(poses: Tensor, name: str, unit: int, spread: Tensor) -> UnitControl:
    """`UnitControl` of poses ``[images, values, 6]``; images without ink are left out."""
    poses = poses[torch.isfinite(poses).flatten(1).all(1)]
    column = POSES.index(name)
    own = poses[:, :, column]
    values = VALUES.expand(len(own), -1)
    moves = (poses[:, -1] - poses[:, 0]).abs() / spread  # from one end to the other, in deviations
    return UnitControl(
        name,
        unit,
        float(_correlation(_ranks(own), values).mean()),
        float(_correlation(own, values).square().mean()),
        float(own[:, 0].mean()),
        float(own[:, -1].mean()),
        {
            other: float(moves[:, place].mean() / moves[:, column].mean().clamp(min=1e-9))
            for place, other in enumerate(POSES)
            if other != name
        },
    )


def _ranks(rows: Tensor) -> Tensor:
    """Ranks within each row, ties shared; poses that differ by less than a thousandth are ties."""
    from scipy.stats import rankdata

    return torch.from_numpy(rankdata((1000 * rows).round().cpu().numpy(), axis=1))


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's, of rows ``[images, values]``; zero where a row is constant."""
    a, b = (rows.double() - rows.double().mean(1, keepdim=True) for rows in (first, second))
    found: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-12)
    return found


def named_units(vae: GuidedVAE) -> dict[str, int]:
    """The unit named after each pose, where a guidance names one."""
    words = {name.split(": ")[-1]: unit for unit, name in unit_names(vae).items()}
    return {name: words[name] for name in POSES if name in words}


def control_of_units(vae: GuidedVAE, images: Tensor, spread: Tensor) -> list[UnitControl]:
    """A row per pose: of the unit named after it; of a VAE without such names, of the unit that moves it best.

    The best unit is chosen on every second image and measured on the others.
    """
    latents = posterior_means(vae, images)
    named = named_units(vae)
    if named:
        return [measured(moved_poses(vae, latents, unit), name, unit, spread) for name, unit in named.items()]
    found = {unit: moved_poses(vae, latents, unit) for unit in range(latents.shape[1])}
    rows = []
    for name in POSES:
        choice = {unit: measured(poses[::2], name, unit, spread) for unit, poses in found.items()}
        best = max(choice, key=lambda unit: abs(choice[unit].rank))
        rows.append(measured(found[best][1::2], name, best, spread))
    return rows


def episode_images(bank: ImageBank, way: int, shot: int, query: int, count: int, seed: int) -> EpisodeBatch:
    """``count`` episodes; their images are float32 in [0, 1]."""
    drawn = Episodes(EpisodeShape(way, shot, query), seed=seed, stream="test")
    return make_batch(bank, EpisodeSampler(bank, drawn).span(0, count))


def posterior_means(vae: GuidedVAE, images: Tensor) -> Tensor:
    """``[B, latent]`` of images ``[B, C, H, W]``."""
    with torch.no_grad():
        return torch.cat([vae.infer(part).mean for part in images.split(CHUNK)])


def spread_images(bank: ImageBank, count: int) -> Tensor:
    """float32 ``[count, C, H, W]`` in [0, 1], evenly spread over the bank."""
    if count < 10:
        raise InputError(f"--count must be at least 10 images; received {count}.")
    rows = torch.linspace(0, len(bank) - 1, min(count, len(bank))).long()
    return to_float(torch.as_tensor(bank.images[rows]))
