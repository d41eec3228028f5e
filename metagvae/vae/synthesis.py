"""Synthesis: images drawn from a VAE's latent, by chance, along named units, between two, and from several at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from episodes import InputError
from metagvae.encoders.norm import full_precision
from metagvae.vae.guided_vae import GuidedVAE

CHUNK = 250  # latents decoded at a time


@dataclass(frozen=True)
class Drawn:
    """Images drawn from latents, in rows.

    Args:
        images: float32 ``[rows, columns, C, H, W]`` in [0, 1].
        latents: float32 ``[rows, columns, latent]``.
        rows: the name of each row.
    """

    images: Tensor
    latents: Tensor
    rows: tuple[str, ...]


def unit_names(vae: GuidedVAE) -> dict[int, str]:
    """The name of each latent unit, by its number: what a guidance says that it does, else its group and number."""
    names = {unit: f"{group} {unit}" for group, units in vae.encoder.units.items() for unit in units}
    for guidance in vae.guidances:
        names |= guidance.unit_names()
    return names


class Synthesis:
    """Images drawn by a VAE; each method is a pure function of the weights, its arguments and ``seed``.

    Args:
        vae: in evaluation mode.
        temperature: divides the decoder's logits before the sigmoid: below 1 strokes are drawn with harder edges, 1
            draws the mean image.
        seed: of draws from the prior.

    Raises:
        InputError: if the temperature is not above zero.

    Example:
        >>> from metagvae import Decoder, Encoder, EncoderConfig, GuidedVAE
        >>> from metagvae.vae.synthesis import Synthesis
        >>> vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=6)), Decoder(6, 1, 28)).eval()
        >>> Synthesis(vae, seed=3).samples(4).images.shape
        torch.Size([1, 4, 1, 28, 28])
    """

    def __init__(self, vae: GuidedVAE, temperature: float = 1.0, seed: int = 0) -> None:
        if not 0 < temperature < float("inf"):
            raise InputError(f"--temperature must be a number above 0; received {temperature}.")
        self.vae, self.temperature, self.seed = vae, temperature, seed

    @torch.no_grad()
    def draw(self, z: Tensor, names: Sequence[str] = ("",)) -> Drawn:
        """Images of latents ``[rows, columns, latent]``."""
        flat = z.flatten(0, 1)
        logits = [full_precision(self.vae.decoder(part)) for part in flat.split(CHUNK)]
        images = (torch.cat(logits) / self.temperature).sigmoid().unflatten(0, z.shape[:2])
        return Drawn(images, z, tuple(names))

    @torch.no_grad()
    def prior(self, count: int) -> Tensor:
        """``[count, latent]``, draws from the prior that leave torch's generator as it was."""
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seed)
            return self.vae.prior.sample(count, {})

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    def samples(self, count: int) -> Drawn:
        """One row of images of draws from the prior."""
        return self.draw(self.prior(count)[None])

    def traversals(self, start: Tensor, units: Sequence[int], values: Sequence[float]) -> Drawn:
        """A row per unit: the latent ``[latent]`` with that unit set to each of ``values``, in prior deviations."""
        rows = start.expand(len(units), len(values), -1).clone()
        for row, unit in zip(rows, units, strict=True):
            row[:, unit] = torch.tensor(list(values), dtype=row.dtype, device=row.device)
        names = unit_names(self.vae)
        return self.draw(rows, [names[unit] for unit in units])

    def interpolations(self, first: Tensor, last: Tensor, steps: int) -> Drawn:
        """A row per pair of latents ``[rows, latent]``: ``steps`` points on the straight line between them."""
        share = torch.linspace(0, 1, steps, device=first.device)[None, :, None]
        rows = first[:, None] * (1 - share) + last[:, None] * share
        return self.draw(rows, [""] * len(rows))

    def exchange(self, kept: Tensor, others: Tensor, groups: Sequence[str]) -> Drawn:
        """Row ``i`` keeps the units of ``groups`` of latent ``kept[i]``; column ``j`` has all else from ``others[j]``.

        With ``content`` kept, a row is one character and a column one pose.

        Args:
            kept: ``[rows, latent]``.
            others: ``[columns, latent]``.

        Raises:
            InputError: if there is no such group, or nothing is left to exchange.
        """
        units = self._units(groups)
        if len(units) == kept.shape[1]:
            raise InputError(
                f"keeping {', '.join(groups)} leaves no latent unit to exchange; this VAE has the groups "
                f"{', '.join(self.vae.encoder.units)}. A plain VAE has content alone."
            )
        z = others[None].repeat(len(kept), 1, 1)
        z[:, :, units] = kept[:, None, units].expand(-1, len(others), -1)
        return self.draw(z, [""] * len(z))

    def setting(self, start: Tensor, group: str, values: Mapping[str, Tensor]) -> Drawn:
        """A row per named value: latents ``[columns, latent]`` whose units of ``group`` are that value's code.

        Args:
            values: codes ``[units of the group]`` by name, such as `codes` gives.
        """
        z = start[None].repeat(len(values), 1, 1)
        units = self._units([group])
        for row, code in zip(z, values.values(), strict=True):
            row[:, units] = code
        return self.draw(z, list(values))

    @torch.no_grad()
    def codes(self, images: Tensor, labels: Tensor, names: Sequence[str], group: str) -> dict[str, Tensor]:
        """The code of each value of an attribute: the mean of the group's units over its images.

        Args:
            images: ``[B, C, H, W]`` in [0, 1].
            labels: int64 ``[B]``, places in ``names``, or below zero where unknown.
            names: of the values; one without images is left out.
        """
        means = torch.cat([self.vae.infer(part).mean for part in images.split(CHUNK)])[:, self._units([group])]
        found = {name: means[labels == value] for value, name in enumerate(names)}
        return {name: rows.mean(0) for name, rows in found.items() if len(rows)}

    def _units(self, groups: Sequence[str]) -> list[int]:
        known = self.vae.encoder.units
        for group in groups:
            if group not in known:
                raise InputError(f"this VAE has no group of latent units {group!r}; it has {', '.join(known)}.")
        return [unit for group in groups for unit in known[group]]
