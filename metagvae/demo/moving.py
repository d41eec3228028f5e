"""Latent: a picture's latent units, moved one by one, seen through the decoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from episodes import ImageBank, InputError, to_float
from episodes.untrusted.sources import to_tensor
from metagvae.demo.ink import centred
from metagvae.vae.guided_vae import GuidedVAE

MOST = 12  # units shown
MARGIN = 1.2  # of a slider beyond what the prior calls its reach


@dataclass(frozen=True)
class Unit:
    """A latent unit on the page; ``kl`` is what it carries, in nats, or None where the prior does not tell."""

    number: int
    name: str
    kl: float | None

    @property
    def label(self) -> str:
        return self.name if self.kl is None else f"{self.name} (KL {self.kl:.2f})"


class LatentView:
    """A VAE and the pictures to look at.

    Args:
        vae: of a pretraining run.
        bank: pictures of its shape.
    """

    def __init__(self, vae: GuidedVAE, bank: ImageBank) -> None:
        config = vae.encoder.config
        if bank.image_shape != (config.channels, config.size, config.size):
            raise InputError(
                f"the run's encoder takes images {(config.channels, config.size, config.size)}; {bank.dataset} has "
                f"{bank.image_shape}. Choose the data set that the run was trained on."
            )
        self.vae, self.bank = vae.eval(), bank
        self.reach = MARGIN * vae.prior.reach
        self.units = self._units()

    @torch.no_grad()
    def _units(self) -> list[Unit]:
        """Guided groups first, then content units by what they carry."""
        kl = self.vae.kl_of_units(self.vae.infer(to_float(self.bank.images[:: max(1, len(self.bank) // 256)])))
        units = [
            Unit(number, f"{group} {number}", None if kl is None else float(kl[number]))
            for group, numbers in self.vae.encoder.units.items()
            for number in numbers
        ]
        guided = [unit for unit in units if not unit.name.startswith("content")]
        content = sorted(
            (unit for unit in units if unit.name.startswith("content")), key=lambda unit: -(unit.kl or 0.0)
        )
        return (guided + content)[:MOST]

    @torch.no_grad()
    def means(self, image: Tensor) -> list[float]:
        """The posterior means of the units shown, of an image ``[1, C, H, W]``, within the sliders' reach."""
        mean = self.vae.infer(image).mean[0]
        return [float(mean[unit.number].clamp(-self.reach, self.reach)) for unit in self.units]

    @torch.no_grad()
    def look(self, image: Tensor, values: Sequence[float]) -> list[tuple[np.ndarray, str]]:
        """Named pictures: as it is, rebuilt, and what the guidances draw, with units set.

        Args:
            image: ``[1, C, H, W]`` in [0, 1].
            values: of the units shown, in their order.
        """
        z = self.vae.infer(image).mean.clone()
        z[:, [unit.number for unit in self.units]] = torch.tensor(values, dtype=z.dtype)
        seen = [(image, "image"), (self.vae.decode(z), "decoder")]
        for guidance in self.vae.guidances:
            seen += [(pictures, name) for name, pictures in guidance.drawings(z).items()]
        return [(enlarged(pictures[0]), name) for pictures, name in seen]

    def picture(self, number: int) -> Tensor:
        """Picture ``number`` of the bank, counted round, ``[1, C, H, W]`` in [0, 1]."""
        number %= len(self.bank)
        return to_float(self.bank.images[number : number + 1])

    def drawn(self, picture: Image.Image) -> Tensor:
        """A drawing, dark on white, as a picture of the bank's kind, ``[1, C, H, W]`` in [0, 1]."""
        config = self.vae.encoder.config
        image = to_float(to_tensor(centred(picture), config.size, config.channels)[None])
        return 1 - image if config.polarity == "ink" else image


def enlarged(picture: Tensor, side: int = 168) -> np.ndarray:
    """uint8 ``[H, W, 3]`` of a picture ``[C, H, W]`` in [0, 1], whole pixels repeated."""
    times = max(1, side // picture.shape[-1])
    large = picture.float().clamp(0, 1).repeat_interleave(times, 1).repeat_interleave(times, 2)
    return (large.expand(3, -1, -1) if len(large) == 1 else large).mul(255).byte().permute(1, 2, 0).numpy()
