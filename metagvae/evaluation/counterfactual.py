"""Counterfactual images against those that the scene itself would have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from episodes import ImageBank, InputError, to_float
from episodes.datasets.scenes import Scene
from metagvae.vae.guided_vae import GuidedVAE


@dataclass(frozen=True)
class CounterfactualError:
    """Squared errors per image, sums over its pixels, averaged over images.

    Args:
        errors: by the factor that is set to another image's: of the decoded image against the scene's own.
        untouched: by the factor, of the image as it was: what doing nothing costs.
        rebuilt: of images that are decoded with nothing set, the floor.
    """

    errors: dict[str, float]
    untouched: dict[str, float]
    rebuilt: float

    @property
    def mean(self) -> float:
        """Over the factors."""
        return sum(self.errors.values()) / len(self.errors)


def causes(scene: Scene) -> list[str]:
    """The factors of a scene that have effects."""
    return [name for name in scene.parents if any(name in parents for parents in scene.parents.values())]


@torch.no_grad()
def counterfactual_error(
    vae: GuidedVAE, scene: Scene, bank: ImageBank, factors: Sequence[str] = (), count: int = 1000, seed: int = 0
) -> CounterfactualError:
    """Sets a factor of each of ``count`` images to another image's, and compares with the scene drawn anew.

    Args:
        bank: images of the scene, all factors known.
        factors: which to set, one at a time; without any, each that has effects.

    Raises:
        InputError: if a factor of the bank's images is unknown.
    """
    if bank.factors is None or bank.factors.names != tuple(scene.parents) or not bank.factors.known.all():
        raise InputError(
            f"counterfactual errors need images whose factors {', '.join(scene.parents)} are all known; in "
            f"the {bank.split} split of {bank.dataset} they are not."
        )
    generator = torch.Generator().manual_seed(seed)
    rows, others = (torch.randint(len(bank), (count,), generator=generator) for _ in range(2))
    images, given = to_float(bank.gather(rows)), to_float(bank.gather(others))
    known, wished = bank.factors.values[rows], bank.factors.columns(others)
    errors, untouched = {}, {}
    for name in factors or causes(scene):
        truth = scene.render(scene.intervene(known, {name: wished[name]}))
        errors[name] = _squares(vae.counterfactual(images, {name: given}), truth)
        untouched[name] = _squares(images, truth)
    return CounterfactualError(errors, untouched, _squares(vae.reconstruct(images), images))


def _squares(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().sum((1, 2, 3)).mean())
