"""Identity of moved images: whether a frozen encoder still puts them nearest to their own class, and at best could."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from episodes import EpisodeBatch, ImageBank, InputError
from episodes.augment import resample, sampling_grid
from episodes.counter_rng import check_seed
from metagvae.guidance.spatial_transformer import SpatialTransformer
from metagvae.studies.control import episode_images, posterior_means
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.synthesis import Synthesis

WAY, SHOT = 20, 5
ENDS = (-2.0, 2.0)

Share = tuple[float, float]
Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Trial:
    """Images to rebuild and move, and how.

    Args:
        judge: an encoder that says which class a moved image is of, by class means of 5 real images among 20 classes;
            lenet trains one on the training images' classes (28 x 28).
        episodes: of the judge; each has one image of each of its classes.
        temperature: divides the decoder's logits before the sigmoid; below 1 draws harder edges.
        seed: of episodes and networks.

    Raises:
        InputError: if a number is out of its range.
    """

    judge: str = "warp-protonet-omniglot"
    episodes: int = 30
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed, "--seed")
        if self.episodes < 2:
            raise InputError(f"--episodes must be at least 2; received {self.episodes}.")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"--temperature must be a number above 0; received {self.temperature}.")


@dataclass(frozen=True)
class Identity:
    """Shares of images that a frozen encoder puts nearest to their own class, each with its half-width.

    Args:
        real: of the images themselves: what the judge can tell at best.
        unmoved: of images rebuilt without any unit moved: what is left to lose by moving.
        moved: with the unit of each pose at -2 and 2.
        alike: of the images themselves under the warp that the unit at -2 and 2 stands for, never rebuilt; empty
            without a spatial transformer.
    """

    way: int
    judge: str
    real: Share
    unmoved: Share
    moved: dict[str, Share]
    alike: dict[str, Share] = field(default_factory=dict)


class Judge:
    """Class means of real images by episode, in features that know nothing of the VAE.

    Args:
        features: images ``[B, C, H, W]`` to ``[B, D]``.
        batch: ``[E, way, shot, ...]`` support images, and one query of each class.
    """

    def __init__(self, features: Features, batch: EpisodeBatch) -> None:
        self.features, self.shape = features, batch.support.shape[:3]
        self.means = features(batch.support.flatten(0, 2)).unflatten(0, self.shape).mean(2)

    def share(self, images: Tensor) -> Share:
        """The share of images ``[E * way, C, H, W]`` nearest to their own class, and its half-width over episodes."""
        features = self.features(images).unflatten(0, self.shape[:2])
        right = torch.cdist(features, self.means).argmin(2) == torch.arange(self.shape[1], device=features.device)
        each = right.double().mean(1)  # images of one episode share their rivals
        return float(each.mean()), float(1.96 * each.std() / len(each) ** 0.5)


@torch.no_grad()
def identity_kept(vae: GuidedVAE, bank: ImageBank, features: Features, units: dict[str, int], trial: Trial) -> Identity:
    """Whether moved images are still nearest to their own class among `WAY`, by a frozen encoder's class means.

    Class means are of `SHOT` real images each; the image that is rebuilt and moved is another one.

    Args:
        features: of the judge, images ``[B, C, H, W]`` to ``[B, D]``.
        units: the unit of each pose.
    """
    way = min(WAY, bank.num_classes)
    batch = episode_images(bank, way, SHOT, 1, trial.episodes, trial.seed)
    judge, images = Judge(features, batch), batch.query.flatten(0, 2)
    latents = posterior_means(vae, images)
    synthesis = Synthesis(vae, trial.temperature)

    def drawn(z: Tensor) -> Share:
        return judge.share(synthesis.draw(z[:, None]).images.flatten(0, 1))

    moved, alike = {}, {}
    for word, unit in units.items():
        ends = [_with_unit(latents, unit, value) for value in ENDS]
        moved[word] = _together([drawn(z) for z in ends])
        if isinstance(vae.decoder, SpatialTransformer):
            alike[word] = _together([judge.share(moved_alike(vae.decoder, images, latents, z)) for z in ends])
    return Identity(way, trial.judge, judge.share(images), drawn(latents), moved, alike)


def moved_alike(transformer: SpatialTransformer, images: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Images under the warp that takes what ``before`` draws to what ``after`` draws, where they differ in pose alone.

    Args:
        images: ``[B, C, H, W]`` in [0, 1].
        before, after: latents ``[B, latent]``.
    """
    here, there = (_square(transformer.matrices(z)) for z in (before, after))
    matrices = (torch.linalg.inv(here) @ there)[:, :2]
    return resample(images, sampling_grid(matrices, images.shape)).clamp(0, 1)


def _square(matrices: Tensor) -> Tensor:
    """``[B, 3, 3]`` of ``[B, 2, 3]``."""
    last = matrices.new_tensor([0.0, 0.0, 1.0]).expand(len(matrices), 1, 3)
    return torch.cat((matrices, last), 1)


def _with_unit(latents: Tensor, unit: int, value: float) -> Tensor:
    z = latents.clone()
    z[:, unit] = value
    return z


def _together(ends: list[Share]) -> Share:
    """Mean share of both ends, and the wider half-width: their images are the same."""
    return sum(share for share, _ in ends) / len(ends), max(half for _, half in ends)
