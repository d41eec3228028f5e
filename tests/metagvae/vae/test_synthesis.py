"""Images drawn by a VAE: only what was asked for changes, and a seed says it all."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from episodes import InputError
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.guidance import assign_units
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.synthesis import Synthesis, unit_names
from metagvae.zoo.build import VAESection, new_vae

GUIDED = [{"name": "deformable_pca", "main_decoder": True}]


def made(guidance: list[dict] | None = None, latent: int = 12) -> GuidedVAE:
    torch.manual_seed(0)
    guidance = GUIDED if guidance is None else guidance
    encoder = Encoder(EncoderConfig(width=8, latent=latent, units=assign_units(guidance, latent)))
    return new_vae(encoder, VAESection(decoder="residual", decoder_width=8, guidance=guidance), {}).eval()


def blob(vae: GuidedVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content decoder draws one bar, whatever the latent."""
    logits = torch.full((1, 1, 28, 28), -9.0)
    logits[..., 8:20, 12:16] = 9.0
    monkeypatch.setattr(vae.decoder.decoder, "forward", lambda z: logits.expand(len(z), 1, 28, 28))


def test_the_main_decoder_draws_upright_and_the_geometry_moves_what_it_drew(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = made()
    geometry = vae.encoder.units["geometry"]
    z = torch.randn(5, 12)
    moved = z.clone()
    moved[:, geometry] = torch.randn(5, 6)
    upright = z.clone()
    upright[:, geometry] = 0
    inner = vae.decoder.decoder
    assert torch.equal(inner(z * vae.decoder.upright), inner(moved * vae.decoder.upright))
    assert torch.allclose(vae.decoder(upright), inner(upright), atol=1e-5)  # the identity at zero
    assert not torch.allclose(vae.decoder(moved), vae.decoder(upright), atol=1e-2)
    # by an independent affine warp: scipy-like resampling of torch at the matrix that the guidance says
    (guidance,) = vae.guidances
    matrices = guidance.warp(moved[:, geometry])
    expected = F.grid_sample(
        inner(upright), F.affine_grid(matrices, [5, 1, 28, 28], align_corners=False),
        padding_mode="border", align_corners=False,
    )  # fmt: skip
    assert torch.allclose(vae.decoder(moved), expected, atol=1e-5)


def test_the_gains_learn_from_the_main_decoder_and_are_stored_once() -> None:
    vae = made()
    names = list(vae.state_dict())
    assert [name for name in names if name.endswith("gains")] == ["guidances.0.gains"]
    vae.decode(torch.randn(4, 12)).square().sum().backward()
    gains = vae.guidances[0].gains.grad
    assert gains is not None
    assert (gains.abs() > 0).all()


@pytest.mark.parametrize(("word", "axis"), [("right", -1), ("down", -2)])
def test_the_named_units_move_the_image_as_they_say(word: str, axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = made()
    blob(vae, monkeypatch)
    unit = next(number for number, name in unit_names(vae).items() if name == f"geometry: {word}")
    images = Synthesis(vae).traversals(torch.zeros(12), [unit], [-1.0, 0.0, 1.0]).images[0, :, 0]
    ink = images.sum(-1 if axis == -2 else -2)
    middle = (ink * torch.arange(28.0)).sum(-1) / ink.sum(-1)
    assert middle[0] + 1 < middle[1] < middle[2] - 1


def test_samples_are_a_function_of_the_seed_and_leave_torchs_generator() -> None:
    vae = made()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = Synthesis(vae, seed=1).samples(7), Synthesis(vae, seed=1).samples(7)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, Synthesis(vae, seed=2).samples(7).images)
    assert 0 <= first.images.min() <= first.images.max() <= 1


def test_a_row_of_an_exchange_keeps_its_content_and_a_column_its_pose() -> None:
    vae = made()
    kept, others = torch.randn(3, 12), torch.randn(4, 12)
    drawn = Synthesis(vae).exchange(kept, others, ["content"])
    geometry, content = vae.encoder.units["geometry"], vae.encoder.units["content"]
    assert drawn.images.shape[:2] == (3, 4)
    assert torch.equal(drawn.latents[:, :, content], kept[:, None, content].expand(3, 4, -1))
    assert torch.equal(drawn.latents[:, :, geometry], others[None, :, geometry].expand(3, 4, -1))
    with pytest.raises(InputError, match="no latent unit to exchange"):
        Synthesis(made([])).exchange(kept, others, ["content"])
    with pytest.raises(InputError, match="no group of latent units 'style'"):
        Synthesis(vae).exchange(kept, others, ["style"])


def test_interpolations_go_from_one_latent_to_the_other_and_temperature_hardens() -> None:
    vae = made()
    first, last = torch.randn(2, 12), torch.randn(2, 12)
    drawn = Synthesis(vae).interpolations(first, last, 5)
    assert torch.allclose(drawn.latents[:, 0], first)
    assert torch.allclose(drawn.latents[:, -1], last)
    assert torch.allclose(drawn.latents[:, 2], (first + last) / 2)
    hard = Synthesis(vae, temperature=0.1).interpolations(first, last, 5).images
    assert ((hard - 0.5).abs() >= (drawn.images - 0.5).abs() - 1e-6).all()
    with pytest.raises(InputError, match="--temperature"):
        Synthesis(vae, temperature=0.0)


def test_codes_are_the_means_of_the_groups_units() -> None:
    vae = made()
    images, labels = torch.rand(6, 1, 28, 28), torch.tensor([0, 1, 1, -1, 0, 1])
    synthesis = Synthesis(vae)
    codes = synthesis.codes(images, labels, ["a", "b", "never seen"], "geometry")
    mean = vae.infer(images).mean[:, vae.encoder.units["geometry"]]
    assert list(codes) == ["a", "b"]
    assert torch.allclose(codes["a"], mean[[0, 4]].mean(0), atol=1e-6)
    drawn = synthesis.setting(torch.randn(3, 12), "geometry", codes)
    assert drawn.rows == ("a", "b")
    units = vae.encoder.units["geometry"]
    assert torch.equal(drawn.latents[1][:, units], codes["b"].expand(3, -1))
