"""Quiz: twenty real images and twenty that a VAE drew, one at a time; a person says which are which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from episodes import ImageBank, InputError, to_float
from episodes.counter_rng import seed_for
from metagvae.demo.moving import enlarged
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.synthesis import Synthesis

EACH = 20  # real images of a round, and as many drawn
TEMPERATURE = 0.25  # nearest to real images of those measured, docs/results/generator.md


@dataclass(frozen=True)
class Tally:
    """A person's answers so far in a round.

    Args:
        asked: answers given.
        right: those that were right.
        fooled: drawn images that were taken for real.
    """

    asked: int = 0
    right: int = 0
    fooled: int = 0

    def sentence(self) -> str:
        """The score in words."""
        if not self.asked:
            return f"{EACH} images are real and {EACH} were drawn by the VAE. Say which, one by one."
        if self.asked < 2 * EACH:
            return f"{self.right} of {self.asked} right, {self.fooled} drawn ones taken for real."
        return (
            f"Done: {self.right} of {self.asked} right, {100 * self.right / self.asked:.0f} %; guessing gives 50 %. "
            f"{self.fooled} of {EACH} drawn images passed for real."
        )


class Quiz:
    """Rounds of real and drawn images in an order that the round's number decides.

    Args:
        vae: draws from its prior.
        bank: real images of its shape, of the split that it was not trained on.
        temperature: of the drawing; see `Synthesis`.

    Raises:
        InputError: if the images are of another shape, or fewer than a round needs.
    """

    def __init__(self, vae: GuidedVAE, bank: ImageBank, temperature: float = TEMPERATURE) -> None:
        config = vae.encoder.config
        if bank.image_shape != (config.channels, config.size, config.size) or len(bank) < EACH:
            raise InputError(
                f"the quiz needs {EACH} real images {[config.channels, config.size, config.size]}; {bank.dataset} has "
                f"{len(bank)} of {list(bank.image_shape)}."
            )
        self.vae, self.bank, self.temperature = vae.eval(), bank, temperature
        self.ink = config.polarity == "ink"

    def round(self, number: int) -> tuple[Tensor, Tensor]:
        """Images ``[40, C, H, W]`` in [0, 1] of a round, and bool ``[40]``: which are real."""
        generator = torch.Generator().manual_seed(seed_for(number, 10))
        rows = torch.randperm(len(self.bank), generator=generator)[:EACH]
        real = to_float(torch.as_tensor(self.bank.images[rows]))
        drawn = Synthesis(self.vae, self.temperature, number).samples(EACH).images[0]
        # both as 256 greys: what a screen shows is all there is to tell them by
        images = torch.cat((real, (255 * drawn.cpu()).round() / 255))
        order = torch.randperm(2 * EACH, generator=generator)
        return images[order], (order < EACH)

    def show(self, number: int, place: int) -> np.ndarray:
        """Image ``place`` of a round as the page shows it, uint8 ``[H, W, 3]``, ink dark."""
        image = self.round(number)[0][place % (2 * EACH)]
        return enlarged(1 - image if self.ink else image)

    def answer(self, number: int, tally: Tally, real: bool) -> tuple[Tally, str]:
        """The new score after a person called the image on view real or drawn, and what to say.

        A round that is over takes no more answers.
        """
        if tally.asked >= 2 * EACH:
            return tally, tally.sentence()
        truth = bool(self.round(number)[1][tally.asked])
        new = Tally(tally.asked + 1, tally.right + (truth == real), tally.fooled + (real and not truth))
        return new, f"{'Right' if truth == real else 'No'}, it was {'real' if truth else 'drawn'}. {new.sentence()}"
