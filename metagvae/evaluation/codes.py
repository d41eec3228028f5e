"""Codes of pictures of known factors: what every disentanglement score is a function of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from episodes import ImageBank, InputError, to_float
from episodes.datasets.factors import Factor, FactorPictures
from metagvae.compute.device import Device
from metagvae.encoders.norm import full_precision

# A unit whose standard deviation over the data is a smaller part of the largest's is not in use. Burda, Grosse and
# Salakhutdinov (ICLR 2016) take a variance of 0.01, which supposes a prior of variance 1; a score must not change
# with the unit that a code is measured in.
COLLAPSED = 0.01
MOST_VALUES = 8  # that a classifier is asked to tell apart; an ordered factor of more is merged into so many
GROUPS = 10  # of an image's own factors, as many images in each


@dataclass(frozen=True)
class Coded:
    """Codes of pictures of known factors.

    Args:
        codes: float64 ``[n, units]``, such as posterior means.
        values: int64 ``[n, factors]``.
        factors: what each column of ``values`` is.
    """

    codes: np.ndarray
    values: np.ndarray
    factors: tuple[Factor, ...]

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.values.shape != (len(self.codes), len(self.factors)):
            raise InputError(
                f"codes must be [n, units] and values [n, {len(self.factors)}]; received {list(self.codes.shape)} and "
                f"{list(self.values.shape)}."
            )


@torch.no_grad()
def encode(encoder: nn.Module, pictures: FactorPictures, count: int, seed: int, device: Device) -> Coded:
    """Codes of ``count`` pictures drawn with ``seed``; the encoder is put in evaluation mode."""
    encoder.eval()
    values = pictures.draw(count, seed)
    codes = []
    for rows in values.split(512):
        images = pictures.render(rows).to(device.device)
        with device.precision():
            codes.append(full_precision(encoder(device.layout(images))).cpu())
    return Coded(torch.cat(codes).double().numpy(), values.numpy(), pictures.factors)


def in_use(data: Coded) -> np.ndarray:
    """bool ``[units]``: whose standard deviation is at least `COLLAPSED` of the largest's; none of a constant code."""
    deviations = data.codes.std(0)
    # what adding up equal numbers leaves is no variation
    varies: np.ndarray = deviations > 1e-12 * np.abs(data.codes).max(0, initial=0.0)
    used: np.ndarray = varies & (deviations >= COLLAPSED * deviations.max(initial=0.0))
    return used


def merged(data: Coded, number: int, most: int = MOST_VALUES) -> np.ndarray:
    """int64 ``[n]``: a factor's values, those of an ordered one merged into at most ``most`` groups of neighbours."""
    factor = data.factors[number]
    groups = min(factor.size, most) if factor.ordered else factor.size
    values: np.ndarray = data.values[:, number] * groups // factor.size
    return values


@torch.no_grad()
def encode_halves(encoder: nn.Module, bank: ImageBank, count: int, seed: int, device: Device) -> tuple[Coded, Coded]:
    """Codes of at most ``count`` images of a bank and of half as many others, and the factors that the bank knows.

    Each factor is merged into groups of as many images each; one of fewer values keeps them.

    Raises:
        InputError: if the bank's images have no factors, or some are unknown, or one never varies.
    """
    factors = bank.factors
    if factors is None or not bool(factors.known.all()):
        raise InputError(
            f"scores need images whose factors are all known; the {bank.split} split of {bank.dataset} has "
            f"{'none' if factors is None else 'unknown ones'}."
        )
    encoder.eval()
    order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(seed))
    first = min(count, len(bank) * 2 // 3)
    order = order[: first + min(count // 2, len(bank) - first)]
    codes = []
    for rows in order.split(512):
        images = to_float(bank.gather(rows)).to(device.device)
        with device.precision():
            codes.append(full_precision(encoder(device.layout(images))).cpu())
    values, found = [], []
    for name, column in zip(factors.names, factors.values[order].double().numpy().T, strict=True):
        edges = np.unique(np.quantile(column, np.linspace(0, 1, GROUPS + 1)[1:-1]))
        groups = np.unique(np.digitize(column, edges), return_inverse=True)[1]
        if not groups.any():
            raise InputError(f"the factor {name!r} never varies in the {bank.split} split of {bank.dataset}.")
        values.append(groups)
        found.append(Factor(name, int(groups.max()) + 1))
    every = Coded(torch.cat(codes).double().numpy(), np.stack(values, 1), tuple(found))
    return (
        Coded(every.codes[:first], every.values[:first], every.factors),
        Coded(every.codes[first:], every.values[first:], every.factors),
    )
