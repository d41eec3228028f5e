"""Short-run inference against closed forms: the sampler, its noise, and what training makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch.distributions import Bernoulli, Normal

from episodes import InputError
from episodes.counter_rng import fold
from metagvae import zoo
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import EncoderSection, PretrainConfig, VAESection
from metagvae.guidance import GuidanceContext
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.signals import Interrupted
from metagvae.storage.tensors import read_tensors
from metagvae.training.pretraining import pretrain
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.inference import ShortRun
from metagvae.vae.inference.image_noise import image_keys, normal_noise
from metagvae.vae.likelihoods import log_likelihood
from metagvae.vae.priors import Prior
from metagvae.zoo.build import new_encoder, new_vae
from tests.support.banks import stripes
from tests.support.linear_gaussian import LinearGaussian

CHAINS = 100_000


def short_run(latent: int, **options: Any) -> ShortRun:
    return ShortRun(GuidanceContext(1, 28, {"content": list(range(latent))}), **options)


@pytest.mark.parametrize(
    ("start", "temperature", "steps"), [("prior", 1.0, 20), ("prior", 0.2, 7), ("encoder", 1.0, 3), ("encoder", 0.0, 9)]
)
def test_mean_and_covariance_after_k_steps_are_the_closed_form(start: str, temperature: float, steps: int) -> None:
    """A = I - s V H: the mean goes by A^K, the covariance gathers 2 s T A^k V A'^k; the bias of finite K included."""
    model = LinearGaussian()
    length = 0.07
    inference = short_run(3, steps=steps, step=length, temperature=temperature, start=start).double()
    eye = torch.eye(3, dtype=torch.float64)
    if start == "prior":
        mean, variance, spread = torch.zeros(3).double(), torch.ones(3).double(), eye
        keys = fold(torch.arange(CHAINS), 5)
        begin = normal_noise(keys, 2**32, 3)
    else:
        mean, variance = torch.tensor([0.5, -1.0, 0.3]).double(), torch.tensor([0.2, 1.0, 0.5]).double()
        spread, keys = 0 * eye, fold(torch.arange(CHAINS), 6)
        begin = mean.expand(CHAINS, 3)
    image = model.images[1:2].expand(CHAINS, -1, -1, -1)
    z = inference.ends(model.vae, image, begin, variance.expand(CHAINS, 3), keys)
    move = eye - length * variance.diag() @ model.precision
    power = torch.linalg.matrix_power
    goal = model.posterior_mean(1)
    expected_mean = goal + power(move, steps) @ (mean - goal)
    expected = power(move, steps) @ spread @ power(move, steps).T
    for k in range(steps):
        expected = expected + 2 * length * temperature * power(move, k) @ variance.diag() @ power(move, k).T
    assert float((z.mean(0) - expected_mean).abs().max()) < 0.005
    assert float((torch.cov(z.T) - expected).abs().max()) < 0.005
    assert float((expected_mean - goal).abs().max()) > 0.01  # the bias of so few steps is there to be seen


def test_noise_is_normal_and_independent_between_keys_steps_and_units() -> None:
    keys = fold(torch.arange(20_000), 1)
    noise = torch.stack([normal_noise(keys, step, 4) for step in (0, 1)], -1)
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 0.001
    together = torch.corrcoef(noise.flatten(1).T)
    assert float((together - torch.eye(8)).abs().max()) < 0.03
    neighbours = torch.corrcoef(torch.stack((noise[:-1, 0, 0], noise[1:, 0, 0])))[0, 1]
    assert abs(float(neighbours)) < 0.03
    assert torch.equal(normal_noise(keys[:3], 1, 4), noise[:3, :, 1])


def test_keys_tell_images_apart_and_nothing_else() -> None:
    images = torch.rand(500, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    keys = image_keys(images)
    assert len(keys.unique()) == 500
    assert torch.equal(image_keys(images[7:8]), keys[7:8])
    assert torch.equal(image_keys(images.double()), keys)
    swapped = images[:1].flip(-1)
    assert int(image_keys(swapped)) != int(keys[0])


@pytest.mark.parametrize("start", ["encoder", "prior"])
def test_an_image_alone_and_in_a_batch_of_64_are_equal(start: str) -> None:
    section = VAESection(
        decoder_width=4, inference={"name": "short_run", "steps": 5, "temperature": 1.0, "start": start, "chains": 3}
    )
    bank = stripes(16, 4, 28)
    vae = new_vae(new_encoder(EncoderSection(width=8, latent=4), section, bank, 0), section, {}).double().eval()
    images = bank.images.double() / 255
    images[:, :, 0, 0] = torch.linspace(0, 1, 64).double()[:, None]  # no two alike
    with torch.no_grad():
        together = vae.infer(images).mean
        for row in (0, 31, 63):
            alone = vae.infer(images[row : row + 1]).mean
            assert float((alone[0] - together[row]).abs().max()) < 1e-12
    assert float((together[0] - together[1]).abs().max()) > 1e-3
    assert all(weight.grad is None for weight in vae.parameters())


def test_gradients_reach_the_encoder_and_none_stays_behind_in_the_decoder() -> None:
    section = VAESection(decoder_width=4, inference={"name": "short_run", "steps": 3, "step": 0.5})
    bank = stripes(3, 2, 28)
    vae = new_vae(new_encoder(EncoderSection(width=8, latent=4), section, bank, 0), section, {}).train()
    images = bank.images.float() / 255
    before = vae.recognition(images).mean.detach()
    posterior = vae.infer(images)
    posterior.mean.sum().backward()
    assert all(weight.grad is not None for weight in vae.encoder.to_mean.parameters())
    assert all(weight.grad is None for weight in vae.decoder.parameters())
    assert vae.decoder.training
    with torch.no_grad():
        assert bool((vae.log_joint(images, posterior.mean) > vae.log_joint(images, before)).all())


def test_likelihoods_of_single_images_are_torchs() -> None:
    logits, images = torch.randn(3, 1, 5, 5), torch.rand(3, 1, 5, 5).round()
    expected = Bernoulli(logits=logits).log_prob(images).flatten(1).sum(1)
    assert torch.allclose(log_likelihood(logits, images, "bernoulli", 1.0), expected)
    expected = Normal(logits.sigmoid(), 0.3).log_prob(images).flatten(1).sum(1)
    assert torch.allclose(log_likelihood(logits, images, "gaussian", 0.3), expected, rtol=1e-5)


def config(folder: Path, **run: Any) -> PretrainConfig:
    inference = {"name": "short_run", "start": "prior", "steps": 3, "step": [0.2, 0.1], "temperature": 0.2}
    return PretrainConfig(
        encoder=EncoderSection(width=8, latent=6),
        vae=VAESection(decoder_width=4, inference=inference),
        batch=8,
        optim=OptimSection(steps=4),
        run=RunSection(folder=str(folder), device="cpu", log_every=1, **run),
    )


def test_a_decoder_trained_without_an_encoder_resumes_bit_identical_and_teaches_one(tmp_path: Path) -> None:
    bank = stripes(4, 8, 28)
    pretrain(config(tmp_path / "whole"), bank)
    with pytest.raises(Interrupted):
        pretrain(config(tmp_path / "halves", stop_after=2), bank)
    pretrain(config(tmp_path / "halves", resume=True), bank)
    whole, halves = (read_tensors(tmp_path / name / "vae.safetensors") for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    last = list(read_metrics(tmp_path / "whole"))[-1]
    assert {"reconstruction", "distillation"} <= last.keys()
    assert "kl" not in last
    vae = zoo.open(tmp_path / "whole").vae()
    images = bank.images.float() / 255
    assert vae.kl_of_units(vae.infer(images)) is None
    assert vae.kl(vae.infer(images)).isnan().all()
    fresh = new_encoder(EncoderSection(width=8, latent=6), VAESection(), bank, 0)
    assert not torch.equal(vae.encoder.to_mean.weight, fresh.to_mean.weight)


def test_training_salts_the_noise_and_evaluation_does_not() -> None:
    inference = short_run(3, steps=2, start="prior", temperature=1.0).double()
    model = LinearGaussian(inference=inference)
    assert torch.equal(model.vae.infer(model.images).mean, model.vae.infer(model.images).mean)
    model.vae.train()
    torch.manual_seed(3)
    first, second = model.vae.infer(model.images).mean, model.vae.infer(model.images).mean
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(first, model.vae.infer(model.images).mean)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, r"short_run needs steps from 1 to 10,000 and step above 0; received 0"),
        ({"step": []}, "step above 0"),
        ({"step": [0.1, -1.0]}, "step above 0"),
        ({"step": float("nan")}, "step above 0"),
        ({"start": "middle"}, "start must be 'encoder' or 'prior'; received 'middle'"),
        ({"temperature": -1.0}, "temperature from 0 to 100"),
        ({"chains": 0}, "1 to 1,000 chains"),
        ({"seed": 2**70}, "short_run: seed must be between"),
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        short_run(3, **options)


def test_guidances_without_an_encoder_are_refused() -> None:
    section = VAESection(
        guidance=[{"name": "deformable_pca"}], inference={"name": "short_run", "start": "prior"}, decoder_width=4
    )
    encoder = new_encoder(EncoderSection(width=8, latent=16), section, stripes(3, 2, 28), 0)
    with pytest.raises(InputError, match="begins at the prior, so no guidance could reach the encoder"):
        new_vae(encoder, section, {})


def test_a_prior_without_a_density_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LinearGaussian(inference=short_run(3, steps=2).double())
    monkeypatch.setattr(type(model.vae.prior), "log_prob", Prior.log_prob)
    with pytest.raises(InputError, match="the prior 'standard_normal' has no density"):
        model.vae.infer(model.images)


def test_the_density_of_the_standard_normal_is_torchs() -> None:
    vae: GuidedVAE = LinearGaussian().vae
    z = torch.randn(4, 3).double()
    assert torch.allclose(vae.prior.log_prob(z, {}), Normal(0.0, 1.0).log_prob(z).sum(-1))
