"""The mixture that is fitted once a VAE is trained: where it draws, what it leaves alone, and that it is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scipy.stats import kstest, multivariate_normal

from episodes import ImageBank, InputError, to_float
from metagvae import zoo
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import DataConfig, EncoderSection, PretrainConfig, TrainConfig, VAESection
from metagvae.encoders.encoder import Posterior
from metagvae.guidance import GuidanceContext
from metagvae.runs.signals import Interrupted
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain
from metagvae.training.stopped import StoppedRun
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.priors import ExPostMixture, StandardNormal
from tests.support.banks import stripes

CONTEXT = GuidanceContext(1, 28, {"content": [0, 1, 2]})
MIXTURE = {"name": "ex_post_mixture", "components": 2}
COVARIANCE = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, -0.3], [0.0, -0.3, 0.5]])


def codes(count: int, centre: list[float]) -> torch.Tensor:
    drawn = multivariate_normal(centre, COVARIANCE.numpy(), seed=0).rvs(count)
    return torch.from_numpy(drawn).float()


def test_draws_have_the_centres_shares_and_covariances_of_the_codes() -> None:
    prior = ExPostMixture(CONTEXT, components=2)
    prior.fit(torch.cat((codes(3000, [-6.0, 0.0, 2.0]), codes(1000, [6.0, 0.0, 2.0]))))
    torch.manual_seed(0)
    drawn = prior.sample(20_000, {})
    left = drawn[:, 0] < 0
    assert float(left.double().mean()) == pytest.approx(0.75, abs=0.01)
    assert torch.allclose(drawn[left].mean(0), torch.tensor([-6.0, 0.0, 2.0]), atol=0.08)
    assert torch.allclose(drawn[left].T.cov(), COVARIANCE, atol=0.08)
    assert torch.allclose(drawn[~left].T.cov(), COVARIANCE, atol=0.12)


def test_before_it_is_fitted_it_is_the_standard_normal_and_its_density_stays_so() -> None:
    prior, plain = ExPostMixture(CONTEXT), StandardNormal(CONTEXT)
    torch.manual_seed(1)
    assert all(kstest(prior.sample(4000, {})[:, unit], "norm").pvalue > 0.001 for unit in range(3))
    posterior = Posterior(torch.randn(5, 3), torch.randn(5, 3))
    z = posterior.sample()
    before = prior.kl(posterior, z, {})
    prior.fit(codes(500, [3.0, 0.0, 0.0]))
    assert torch.equal(prior.kl(posterior, z, {}), before)
    assert torch.equal(before, plain.kl(posterior, z, {}))
    assert torch.equal(prior.log_prob(z, {}), plain.log_prob(z, {}))


def test_a_run_ends_with_its_fit_and_the_run_opens_with_it(tmp_path: Path) -> None:
    config = PretrainConfig(
        encoder=EncoderSection(width=8, latent=4),
        vae=VAESection(decoder_width=4, prior=MIXTURE),
        batch=16,
        optim=OptimSection(steps=3),
        run=RunSection(folder=str(tmp_path / "run")),
    )
    bank = stripes(4, 8, 28)
    vae = pretrain(config, bank)
    with torch.no_grad():
        means = vae.infer(bank.images.float() / 255).mean
    torch.manual_seed(0)
    drawn = vae.prior.sample(4000, {})
    assert torch.allclose(drawn.mean(0), means.mean(0), atol=0.05)
    assert torch.allclose(drawn.std(0), means.std(0), atol=0.05)
    again = zoo.open(tmp_path / "run").vae()
    torch.manual_seed(0)
    assert torch.equal(again.prior.sample(4000, {}), drawn)


def assert_fitted(vae: GuidedVAE, bank: ImageBank) -> None:
    """Draws have the mean and deviation of the posterior means of a bank's images."""
    with torch.no_grad():
        means = vae.infer(to_float(bank.images[:])).mean
    torch.manual_seed(0)
    drawn = vae.prior.sample(4000, {})
    assert torch.allclose(drawn.mean(0), means.mean(0), atol=0.05)
    assert torch.allclose(drawn.std(0), means.std(0), atol=0.05)


def test_a_stopped_run_is_exported_with_its_fit(tmp_path: Path) -> None:
    data = DataConfig("sprites", size=16, options={"count": 60})
    config = PretrainConfig(
        data=data,
        encoder=EncoderSection(width=8, latent=4),
        vae=VAESection(decoder_width=4, prior=MIXTURE),
        batch=16,
        optim=OptimSection(steps=3),
        run=RunSection(folder=str(tmp_path / "run"), stop_after=2),
    )
    with pytest.raises(Interrupted):
        pretrain(config)
    assert_fitted(StoppedRun(tmp_path / "run").vae(), data.make().load("train"))


def test_a_training_that_moves_the_codes_ends_with_a_fit_of_its_own(tmp_path: Path) -> None:
    config = TrainConfig(
        encoder=EncoderSection(width=8, latent=4),
        vae=VAESection(decoder_width=4, prior=MIXTURE),
        mode="guided",
        episodes=EpisodeSection(2, 1, 2, 1),
        validation=ValidationSection(0),
        optim=OptimSection(steps=2),
        run=RunSection(folder=str(tmp_path / "run")),
    )
    bank = stripes(4, 8, 28)
    train(config, bank)
    assert_fitted(zoo.open(tmp_path / "run").vae(), bank)
    config.run.folder, config.vae.prior = str(tmp_path / "none"), {**MIXTURE, "components": 32}
    with pytest.raises(InputError, match="fits 32 components to codes of the training images, of which there are 32"):
        train(config, bank)


def test_too_few_codes_and_components_are_refused() -> None:
    with pytest.raises(InputError, match="needs components >= 1; received 0"):
        ExPostMixture(CONTEXT, components=0)
    with pytest.raises(InputError, match=r"fits 10 components to codes .* of which there are 10"):
        ExPostMixture(CONTEXT).fit(torch.randn(10, 3))


def test_too_few_training_images_are_told_before_any_training(tmp_path: Path) -> None:
    config = PretrainConfig(
        encoder=EncoderSection(width=8, latent=4),
        vae=VAESection(decoder_width=4, prior={"name": "ex_post_mixture", "components": 32}),
        run=RunSection(folder=str(tmp_path / "run")),
    )
    with pytest.raises(InputError, match="fits 32 components to codes of the training images, of which there are 32"):
        pretrain(config, stripes(4, 8, 28))
    assert not (tmp_path / "run").exists()


def test_a_sketch_of_it_takes_no_memory_and_imports_no_compiler() -> None:
    code = """
import sys, torch
from metagvae.guidance import GuidanceContext
from metagvae.vae.priors import ExPostMixture
context = GuidanceContext(1, 28, {"content": list(range(4000))})
with torch.device("meta"):
    prior = ExPostMixture(context, components=10_000)  # 640 GB
small = ExPostMixture(GuidanceContext(1, 28, {"content": [0, 1]}), components=3)
print(prior.factors.is_meta, torch.equal(small.factors, torch.eye(2).repeat(3, 1, 1)), "torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]
