from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Bernoulli, Normal, kl_divergence

from episodes import InputError, to_float
from episodes.batch_share import Share, holding
from metagvae.config.sections import VAESection
from metagvae.encoders.encoder import Encoder, EncoderConfig, Posterior
from metagvae.guidance import GuidanceContext, Views
from metagvae.vae.decoders import DECODERS, Decoder
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.likelihoods import discretised_logistic, reconstruction_error
from metagvae.vae.priors import PRIORS
from metagvae.zoo.build import new_vae
from tests.support.banks import stripes


def small(**options: object) -> GuidedVAE:
    torch.manual_seed(0)
    return GuidedVAE(Encoder(EncoderConfig(width=8, latent=6)), Decoder(6, 1, 28, 8), **options)  # type: ignore[arg-type]


def test_kl_and_log_prob_are_torchs() -> None:
    posterior = Posterior(torch.randn(4, 6), torch.randn(4, 6))
    q = Normal(posterior.mean, (0.5 * posterior.log_var).exp())
    expected, z = kl_divergence(q, Normal(0.0, 1.0)), q.sample()
    prior = small().prior
    per_unit = prior.kl_per_unit(posterior, z, {})
    assert per_unit is not None
    assert torch.allclose(per_unit, expected, atol=1e-6)
    assert torch.allclose(prior.kl(posterior, z, {}), expected.sum(-1), atol=1e-5)
    assert torch.allclose(posterior.log_prob(z), q.log_prob(z).sum(-1), atol=1e-5)


def test_the_standard_normal_is_sampled_and_adds_no_weight() -> None:
    vae = small()
    torch.manual_seed(0)
    z = vae.prior.sample(100_000, {})
    assert z.shape == (100_000, 6)
    assert torch.allclose(z.mean(0), torch.zeros(6), atol=0.02)
    assert torch.allclose(torch.cov(z.T), torch.eye(6), atol=0.02)
    assert {name.partition(".")[0] for name in vae.state_dict()} == {"encoder", "decoder"}


def test_likelihoods_are_torchs() -> None:
    logits, images = torch.randn(3, 1, 5, 5), torch.rand(3, 1, 5, 5).round()
    bernoulli = -Bernoulli(logits=logits).log_prob(images).flatten(1).sum(1).mean()
    assert torch.allclose(reconstruction_error(logits, images, "bernoulli", 1.0), bernoulli)
    normal = Normal(logits.sigmoid(), 0.3)
    constant = torch.tensor(0.3 * (2 * torch.pi) ** 0.5).log() * 25
    gaussian = -normal.log_prob(images).flatten(1).sum(1).mean() - constant
    assert torch.allclose(reconstruction_error(logits, images, "gaussian", 0.3), gaussian, rtol=1e-4)


def test_the_discretised_logistic_is_scipys_mass_between_levels_and_sums_to_one() -> None:
    levels = torch.arange(256, dtype=torch.float64) / 255
    for mean, scale in ((0.0, 0.05), (0.31, 0.02), (0.97, 0.3), (1.0, 0.004)):
        found = discretised_logistic(torch.full_like(levels, mean), levels, scale)
        edges = torch.cat((torch.tensor([-torch.inf]), (levels[1:] + levels[:-1]) / 2, torch.tensor([torch.inf])))
        below = stats.logistic.cdf(edges.numpy(), loc=mean, scale=scale)
        upper = stats.logistic.sf(edges.numpy(), loc=mean, scale=scale)
        # of the two ways to write a small mass, the one that does not cancel
        mass = torch.from_numpy(np.where(edges[:-1] > mean, upper[:-1] - upper[1:], below[1:] - below[:-1]))
        assert float(found.exp().sum()) == pytest.approx(1, abs=1e-9)
        likely = mass > 1e-200
        assert torch.allclose(found[likely], mass[likely].log(), rtol=1e-6)
    # far from its pixel a mean still has a slope, where a difference of sigmoids would be log 0
    logits = torch.full((2, 1, 3, 3), -60.0, requires_grad=True)
    error = reconstruction_error(logits, torch.full((2, 1, 3, 3), 0.5), "logistic", 0.001)
    assert torch.isfinite(error)
    vae = small(likelihood="logistic", sigma=0.05)
    images = (torch.rand(4, 1, 28, 28) * 255).round() / 255
    sum(vae.losses(images).values()).backward()
    assert all(torch.isfinite(weight.grad).all() for weight in vae.parameters() if weight.grad is not None)
    with torch.no_grad():
        z = torch.randn(4, 6)
        expected = -reconstruction_error(vae.decoder(z), images, "logistic", 0.05)
        assert torch.allclose(vae.log_likelihood(images, z).mean(), expected, rtol=1e-5)


def test_posterior_samples_have_its_moments() -> None:
    torch.manual_seed(0)
    posterior = Posterior(torch.tensor([[1.0, -2.0]]).expand(200_000, 2), torch.tensor([0.0, -2.0]).expand(200_000, 2))
    z = posterior.sample()
    assert torch.allclose(z.mean(0), torch.tensor([1.0, -2.0]), atol=0.02)
    assert torch.allclose(z.var(0), torch.tensor([1.0, -2.0]).mul(torch.tensor([0.0, 1.0])).exp(), rtol=0.02)


@torch.no_grad()
def test_of_warps_of_a_picture_the_first_alone_is_rebuilt() -> None:
    vae, images = small().eval(), torch.rand(6, 1, 28, 28)
    torch.manual_seed(1)
    error = vae.losses(images, views=Views(2, torch.zeros(6, 7)))["reconstruction"]
    torch.manual_seed(1)
    z = vae.infer(images).sample()
    expected = reconstruction_error(vae.decoder(z[::2]), images[::2], "bernoulli", 1.0)
    assert float(error) == pytest.approx(float(expected), rel=1e-5)


def test_batch_size_does_not_change_the_scale_of_terms() -> None:
    vae = small().eval()
    images = torch.rand(1, 1, 28, 28).expand(64, 1, 28, 28)
    torch.manual_seed(0)
    many = vae.losses(images)
    few = [vae.losses(images[:8]) for _ in range(8)]
    for name, term in many.items():
        assert float(term.detach()) == pytest.approx(float(sum(f[name] for f in few).detach()) / 8, rel=0.1)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("size", [28, 29, 30, 84])
def test_decoders_give_any_size_and_every_parameter_learns(kind: str, size: int) -> None:
    decoder = DECODERS[kind](5, 3, size, 8)
    pictures = decoder(torch.randn(2, 5))
    assert pictures.shape == (2, 3, size, size)
    pictures.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())


def test_the_ding_network_has_the_sizes_of_its_code_and_the_decoder_mirrors_them() -> None:
    encoder = Encoder(EncoderConfig("ding", 64, latent=10))
    assert encoder.backbone_size == 256 * 4 * 4
    down = [p.shape for n, p in encoder.backbone.named_parameters() if n.endswith("weight")]
    up = [p.shape for n, p in DECODERS["ding"](10, 1, 28, 64).named_parameters() if p.ndim == 4]
    # a transposed convolution's weight is stored from its input's side, so the mirror has the same shapes
    assert up == down[::-1] == [(256, 128, 5, 5), (128, 64, 5, 5), (64, 1, 6, 6)]
    with pytest.raises(InputError, match="22 x 22"):
        Encoder(EncoderConfig("ding", 8, size=20))


def test_every_parameter_learns_and_the_loss_falls() -> None:
    vae = small()
    images = to_float(stripes(4, 4, 28).images)
    optimizer = torch.optim.Adam(vae.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = torch.stack(list(vae.losses(images).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vae.parameters())
    assert losses[-1] < 0.95 * losses[0]


def test_beta_and_warm_up_scale_the_kl_alone() -> None:
    images = torch.rand(4, 1, 28, 28)
    terms = {}
    for beta, warm_up in ((1.0, 1.0), (4.0, 1.0), (4.0, 0.25)):
        torch.manual_seed(1)
        terms[beta, warm_up] = small(beta=beta).eval().losses(images, warm_up=warm_up)
    base = terms[1.0, 1.0]
    assert torch.allclose(terms[4.0, 1.0]["kl"], 4 * base["kl"], rtol=1e-5)
    assert torch.allclose(terms[4.0, 0.25]["kl"], base["kl"], rtol=1e-5)
    assert small().losses(images).keys() == {"reconstruction", "kl"}


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(InputError, match="likelihood"):
        small(likelihood="poisson")
    with pytest.raises(InputError, match="beta"):
        small(beta=-1.0)


def test_an_unknown_decoder_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"vae\.decoder: unknown decoder .mirror.; known: ding, .*residual, upsampling"
    ):
        new_vae(Encoder(EncoderConfig(width=8, latent=6)), VAESection(decoder="mirror"), {})


@pytest.mark.parametrize("name", ["standard_normal", "causal_flow", "ex_post_mixture", "uniform_codes"])
def test_a_part_of_a_batch_draws_its_rows_of_the_whole_batchs_latents(name: str) -> None:
    torch.manual_seed(0)
    units = {"codes": [0, 1], "noise": [2], "content": [3]}
    options = {
        "causal_flow": {"graph": {"codes": []}, "units": 2},
        "ex_post_mixture": {"components": 3},
        "uniform_codes": {"codes": 2, "noise": 1},
    }
    prior = PRIORS[name](GuidanceContext(1, 28, units, {}, {"codes": (-1.0, 1.0)}), **options.get(name, {}))
    if name == "ex_post_mixture":
        prior.fit(torch.randn(200, 4) * 5)
    torch.manual_seed(1)
    whole = prior.sample(6, {})
    for first, count in ((0, 2), (2, 1)):
        torch.manual_seed(1)
        with holding(Share(first, count, 3)):
            assert torch.equal(prior.sample(2 * count, {}), whole[2 * first : 2 * first + 2 * count])
