"""Controls that any claim about an encoder must beat: raw pixels, PCA, an untrained network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from episodes import ImageBank, InputError, to_float
from episodes.counter_rng import below, fold, seed_for
from episodes.tokens import TEXT, numbers_of
from metagvae.encoders.encoder import Encoder, EncoderConfig


class Pixels(nn.Module):
    """The picture itself: ``[B, C, H, W]`` to ``[B, C * H * W]``."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class PCA(nn.Module):
    """Projection onto the leading principal components of a bank's pictures (scikit-learn's solver).

    Args:
        bank: the training pictures; at most 20,000 of them, evenly spread, are used.
        components: how many.
    """

    def __init__(self, bank: ImageBank, components: int = 64) -> None:
        super().__init__()
        from sklearn.decomposition import PCA as Solver

        rows = torch.linspace(0, len(bank) - 1, min(len(bank), 20_000)).long()
        pictures = to_float(bank.images[rows]).flatten(1).numpy()
        solver = Solver(min(components, *pictures.shape), svd_solver="randomized", random_state=0).fit(pictures)
        self.register_buffer("mean", torch.from_numpy(solver.mean_).float())
        self.register_buffer("basis", torch.from_numpy(solver.components_.T.copy()).float())

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, components]``."""
        return (images.flatten(1) - self.get_buffer("mean")) @ self.get_buffer("basis")


class NGrams(nn.Module):
    """Counts of character 1-, 2- and 3-grams, hashed and made length 1: ``[B, 1, 1, length]`` to ``[B, 8192]``.

    Distances of such features are those of the cosine, as in Cavnar and Trenkle's text categorisation (SDAIR 1994).
    """

    width = 8192

    def forward(self, images: Tensor) -> Tensor:
        numbers = numbers_of(images)
        counts = torch.zeros(len(numbers), self.width, device=images.device)
        for size in (1, 2, 3):
            grams = numbers.unfold(1, size, 1)
            keys = torch.full_like(grams[..., 0], size)
            for place in range(size):
                keys = fold(keys, grams[..., place])
            counts.scatter_add_(1, below(keys, self.width), torch.ones_like(keys, dtype=counts.dtype))
        return nn.functional.normalize(counts, dim=1)


def random_encoder(bank: ImageBank, seed: int = 0) -> Encoder:
    """An untrained Conv-4 of 64 channels, its running statistics taken from the bank: no straw man.

    Args:
        bank: the training pictures.
        seed: of its weights.
    """
    torch.manual_seed(seed_for(seed, 0))
    channels, size, _ = bank.image_shape
    units = {"content": list(range(EncoderConfig.latent))}
    encoder = Encoder(EncoderConfig(channels=channels, size=size, polarity=bank.polarity, units=units))
    rows = torch.linspace(0, len(bank) - 1, min(len(bank), 1024)).long()
    encoder.train()
    with torch.no_grad():
        for _ in range(30):  # running averages forget their start as 0.9^n
            encoder(to_float(bank.images[rows[torch.randperm(len(rows))[:256]]]))
    encoder.features = ["backbone"]
    return encoder.eval()


@dataclass(frozen=True)
class Control:
    """One of the controls.

    Args:
        label: its name in a report.
        method: its description beside a result.
        fitted: whether it depends on the training pictures.
        make: builds it from the training pictures and a seed.
        texts: whether it is of texts, where the others are of images.
    """

    label: str
    method: str
    fitted: bool
    make: Callable[[ImageBank, int], nn.Module]
    texts: bool = False


CONTROLS = {
    "pixels": Control("raw pixels", "raw pixels", False, lambda train, seed: Pixels()),
    "pca": Control("PCA", "64 principal components", True, lambda train, seed: PCA(train)),
    "ngrams": Control("character n-grams", "character 1- to 3-grams", False, lambda train, seed: NGrams(), True),
    "random": Control("untrained network", "untrained network", True, random_encoder),
}


def make_control(name: str, train: ImageBank, seed: int = 0) -> nn.Module:
    """The control of that name, fitted on the training pictures where there is something to fit.

    Raises:
        InputError: if it is of texts and these are images, or the other way round.
    """
    if name not in controls_of(train):
        raise InputError(
            f"the control {name!r} is not of the {'texts' if train.polarity == TEXT else 'images'} of {train.dataset}; "
            f"take {', '.join(controls_of(train))}."
        )
    return CONTROLS[name].make(train, seed)


def controls_of(bank: ImageBank) -> list[str]:
    """The controls that there are for a bank's images, or for its texts."""
    return [name for name, control in CONTROLS.items() if control.texts == (bank.polarity == TEXT)]


def fitted_controls(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are controls fitted on training pictures."""
    return [name for name in names if name in CONTROLS and CONTROLS[name].fitted]
