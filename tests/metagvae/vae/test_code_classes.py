"""Classes of codes: what is shared and what is free, by a decoder that shows its latent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from episodes import InputError
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.guidance import GuidanceContext
from metagvae.vae.code_classes import code_classes
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.priors import UniformCodes

UNITS = {"codes": [0, 1, 2], "noise": [3, 4]}


class Shown(nn.Module):
    """Images whose first row of pixels is the latent."""

    def forward(self, z: Tensor) -> Tensor:
        return nn.functional.pad(z[:, None, None, :], (0, 23, 0, 27))


def vae() -> GuidedVAE:
    prior = UniformCodes(GuidanceContext(1, 28, UNITS), codes=3, noise=2)
    return GuidedVAE(Encoder(EncoderConfig("patches", 4, latent=5, units=UNITS)), Shown(), prior=prior).eval()


def test_a_class_shares_its_codes_and_draws_its_noise() -> None:
    model = vae()
    before = torch.random.get_rng_state()
    bank = code_classes(model, classes=20, each=5, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    seen = bank.images[:, 0, 0, :5].view(20, 5, 5)
    assert bool((seen[:, :, :3] == seen[:, :1, :3]).all())
    assert bool((seen[:, :, 3:] != seen[:, :1, 3:]).any(-1)[:, 1:].all())
    assert len(seen[:, 0, :3].unique(dim=0)) == 20
    z = torch.logit(seen.double() / 255)
    assert float(z.min()) < -0.9
    assert float(z.max()) > 0.9
    assert torch.equal(code_classes(vae(), 20, 5, seed=3).images, bank.images)
    assert not torch.equal(code_classes(vae(), 20, 5, seed=4).images, bank.images)
    other = code_classes(vae(), 20, 5, free=["codes"], seed=3).images[:, 0, 0, :5].view(20, 5, 5)
    assert bool((other[:, :, 3:] == other[:, :1, 3:]).all())


def test_what_cannot_be_drawn_is_refused() -> None:
    for options, says in (
        ({"free": ["geometry"]}, "received geometry of codes, noise"),
        ({"free": []}, "received none of"),
        ({"free": ["codes", "noise"]}, "others that are shared"),
        ({"classes": 1}, "received 1 and 10"),
        ({"classes": 100_000}, "at most 200,000"),
    ):
        with pytest.raises(InputError, match=says):
            code_classes(vae(), **options)  # type: ignore[arg-type]
