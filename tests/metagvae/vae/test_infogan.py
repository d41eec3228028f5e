"""InfoGAN and its contrastive regulariser: who learns from which term, pairs, the prior's information, and a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from episodes import InputError
from metagvae import zoo
from metagvae.cli import main
from metagvae.config.adversary import AdversarySection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import EncoderSection, PretrainConfig, VAESection
from metagvae.encoders.encoder import Encoder, EncoderConfig, Posterior
from metagvae.guidance import GuidanceContext
from metagvae.guidance.shared_unit import SharedUnit
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.signals import Interrupted
from metagvae.studies.selection import select
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain
from metagvae.vae.decoders import InfoGANDecoder
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.infogan import InfoGAN
from metagvae.vae.priors import UniformCodes
from tests.support.banks import stripes
from tests.support.trainings import assert_same_run, train_config

UNITS = {"codes": [0, 1, 2], "noise": [3, 4]}


def gan(**settings: float) -> InfoGAN:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig("infogan", 4, latent=5, units=UNITS))
    prior = UniformCodes(GuidanceContext(1, 28, UNITS), codes=3, noise=2)
    section = AdversarySection(contrast=2.0, start=0.5, width=4)
    for name, value in settings.items():
        setattr(section, name, value)
    return InfoGAN(GuidedVAE(encoder, InfoGANDecoder(5, 1, 28, 4), prior=prior), section)


def config(folder: Path, **run: object) -> PretrainConfig:
    return PretrainConfig(
        encoder=EncoderSection(backbone="infogan", width=4, latent=5, features=["codes"]),
        vae=VAESection(decoder="infogan", decoder_width=4, prior={"name": "uniform_codes", "codes": 3, "noise": 2}),
        adversary=AdversarySection(contrast=2.0, start=0.5, width=4, generator_rate=0.5),
        batch=8,
        optim=OptimSection(steps=8, lr=0.002, betas=[0.5, 0.999], schedule="constant"),
        run=RunSection(folder=str(folder), save_every=100, log_every=1, device="cpu", **run),  # type: ignore[arg-type]
    )


def reached(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}


def test_each_term_reaches_those_alone_that_are_to_lower_it() -> None:
    model = gan()
    for term, learn in {
        "critic": ("reader.critic", "reader.encoder.backbone"),
        "codes": ("reader.encoder.to_mean", "reader.encoder.backbone"),
        "generator": ("decoder",),
        "generator/codes": ("decoder",),
        "contrast": ("decoder", "contrast.trunk", "contrast.head"),
    }.items():
        model.zero_grad()
        model.losses(torch.rand(6, 1, 28, 28))[term].backward()
        found = reached(model)
        assert found, term
        assert all(name.startswith(learn) for name in found), term
        assert all(any(name.startswith(part) for name in found) for part in learn), term


def test_the_terms_are_the_papers_written_out() -> None:
    model = gan(start=2.0)
    images = torch.rand(6, 1, 28, 28)
    torch.manual_seed(1)
    terms = model.losses(images)
    torch.manual_seed(1)
    z = 2 * torch.rand(6, 5) - 1
    fake = model.decoder(z).sigmoid()
    real, made = (model.reader.critic(model.reader.encoder.maps(x)).squeeze(1).sigmoid() for x in (images, fake))
    read = model.reader.encoder(fake)[:, :3]
    density = torch.distributions.Normal(read, 1.0).log_prob(z[:, :3]).sum(1)
    assert float(terms["critic"].detach()) == pytest.approx(
        float(-(real.log() + (1 - made).log()).mean().detach()), abs=1e-5
    )
    assert float(terms["generator"].detach()) == pytest.approx(float(-made.log().mean().detach()), abs=1e-5)
    assert torch.allclose(terms["codes"], terms["generator/codes"])
    assert float(terms["codes"].detach()) == pytest.approx(float(-0.05 * density.mean().detach()))
    assert not terms["contrast"]


def test_bfloat16_rounds_the_terms_and_no_more() -> None:
    model, images = gan().eval(), torch.rand(6, 1, 28, 28)
    torch.manual_seed(1)
    exact = model.losses(images)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.losses(images)
    for name, term in rounded.items():
        assert term.dtype == torch.float32, name
        assert float(term.detach()) == pytest.approx(float(exact[name].detach()), rel=0.02), name


def test_pairs_share_one_unit_and_the_noise_and_keep_their_distance() -> None:
    torch.manual_seed(0)
    shared_unit = SharedUnit([0, 1, 2], 5, 1, 28, 4, gap=0.8)
    drawn = [2 * torch.rand(3000, 5) - 1 for _ in range(2)]
    one, other, shared = shared_unit.pairs(*drawn)
    same = one == other
    assert bool(same[:, 3:].all())
    assert bool((same[:, :3].sum(1) == 1).all())
    assert torch.equal(same[:, :3].int().argmax(1), shared)
    assert bool(((one - other).abs()[:, :3][~same[:, :3]] >= 0.8 - 1e-6).all())
    assert bool((one.abs() <= 1 + 1e-6).all())
    assert bool((other.abs() <= 1 + 1e-6).all())
    assert stats.chisquare(np.bincount(shared.numpy())).pvalue > 0.001
    # what a pair shares is as it was drawn, so that the whole range of codes and noise is seen
    assert torch.equal(one[same], drawn[0][same])
    assert stats.kstest(one[:, :3][same[:, :3]].numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.001
    assert torch.equal(SharedUnit([0, 1, 2], 5, 1, 28, 4).pairs(*drawn)[0], drawn[0])


def _lights(z: Tensor) -> Tensor:
    """Images in which each unit lights a patch of its own."""
    patches = (z[:, :3].reshape(-1, 1, 1, 3) / 2 + 0.5).repeat_interleave(28, 2).repeat_interleave(9, 3)
    return F.pad(patches, (0, 1))


@pytest.mark.parametrize("lost", [False, True])
def test_the_shared_unit_is_seen_where_units_are_drawn_and_guessed_where_only_their_sum_is(lost: bool) -> None:
    torch.manual_seed(0)
    told = SharedUnit([0, 1, 2], 5, 1, 28, 8)
    mix = torch.ones(3, 3) / 3 if lost else torch.eye(3)
    optimizer = torch.optim.Adam(told.parameters(), 0.01)
    losses = []
    for _ in range(150):
        one, other, shared = told.pairs(*(2 * torch.rand(128, 5) - 1 for _ in range(2)))
        loss = F.cross_entropy(told(*(_lights(z[:, :3] @ mix) for z in (one, other))), shared)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    last = np.mean(losses[-20:])
    assert last > 0.95 * np.log(3) if lost else last < 0.35


def test_the_information_of_a_code_is_log_two_less_the_entropy_of_a_truncated_normal() -> None:
    prior = UniformCodes(GuidanceContext(1, 28, UNITS), codes=3, noise=2)
    mean = torch.tensor([[-1.7, 0.0, 0.4, 0.3, 0.0], [0.99, -0.2, 1.3, -0.5, 2.0]], dtype=torch.float64)
    log_var = torch.tensor([[-3.0, 0.0, 2.0, -1.0, 0.0], [-8.0, 5.0, -2.0, 0.0, 1.0]], dtype=torch.float64)
    found = prior.kl_per_unit(Posterior(mean, log_var), mean, {})
    spread = (0.5 * log_var).exp().numpy()
    low, high = (-1 - mean.numpy()) / spread, (1 - mean.numpy()) / spread
    wished = np.log(2) - stats.truncnorm.entropy(low, high, mean.numpy(), spread)
    assert np.allclose(found[:, :3].numpy(), wished[:, :3], atol=1e-6)
    assert bool((found[:, 3:] == 0).all())
    far = prior.kl_per_unit(Posterior(torch.full((1, 5), 1e6), torch.full((1, 5), -12.0)), torch.zeros(1, 5), {})
    assert bool(torch.isfinite(far).all())
    drawn = prior.sample(4000, {})
    assert stats.kstest(drawn.flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.001
    assert torch.equal(
        prior.log_prob(torch.tensor([[0.0] * 5, [0.0, 0, 0, 0, 1.1]]), {}).exp(), torch.tensor([2**-5.0, 0.0])
    )


def test_a_run_resumes_bit_identical_and_opens_as_any_other(tmp_path: Path) -> None:
    bank = stripes(4, 8, 28)
    pretrain(config(tmp_path / "whole"), bank)
    for place in (3, 6):  # before the regulariser sets in and after
        with pytest.raises(Interrupted):
            pretrain(config(tmp_path / "stopped", stop_after=place, resume="auto"), bank)
    vae = pretrain(config(tmp_path / "stopped", resume=True), bank)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", "vae.safetensors")
    began = [line["contrast"] > 0 for line in read_metrics(tmp_path / "whole")]
    assert began == [False] * 4 + [True] * 4
    trained = zoo.open(tmp_path / "whole")
    assert trained.encoder().features == ["codes"]
    images = torch.rand(3, 1, 28, 28)
    opened = trained.vae()
    assert torch.allclose(opened.infer(images).mean, vae.infer(images).mean, atol=1e-6)
    assert bool((opened.infer(images).mean[:, 3:] == 0).all())
    assert torch.allclose(opened.decode(torch.zeros(2, 5)), vae.decode(torch.zeros(2, 5)), atol=1e-6)
    assert "InfoGAN-CR (contrast 2 from 50 % of the steps)" in trained.card.method
    pretrain(config(tmp_path / "other", seed=1), bank)
    found = select([str(tmp_path / "whole"), str(tmp_path / "other")], bank, groups=20, images=4)
    assert found.agreement.corrected.shape == (2, 2)


def test_the_variance_is_the_error_on_its_own_drawings() -> None:
    model = gan().eval()
    model.fit_variance(count=2000, seed=3)
    torch.manual_seed(5)
    z = model.prior.sample(2000, {})
    with torch.no_grad():
        posterior = model.reader.encoder.posterior(model.draw(z))
    error = (posterior.mean - z).square().mean(0)[:3]
    assert torch.allclose(posterior.log_var[0, :3].exp(), error, rtol=0.1)


def test_the_generator_learns_at_its_own_rate(tmp_path: Path) -> None:
    bank = stripes(4, 8, 28)

    def moved(rate: float) -> dict[str, float]:
        chosen = config(tmp_path / str(rate), stop_after=1)
        assert chosen.adversary is not None
        chosen.adversary.generator_rate = rate
        with pytest.raises(Interrupted):
            pretrain(chosen, bank)
        made = torch.load(next((tmp_path / str(rate) / "state").glob("*")), weights_only=True)
        return {name: float(value.double().norm()) for name, value in made["module"].items()}

    slow, fast = moved(1e-6), moved(1.0)
    assert slow["decoder.first.weight"] != fast["decoder.first.weight"]
    assert slow["reader.critic.weight"] == fast["reader.critic.weight"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: setattr(c, "adversary", None), "uniform_codes has no KL"),
        (lambda c: setattr(c.vae, "prior", {"name": "standard_normal"}), "set vae.prior: {name: uniform_codes}"),
        (lambda c: setattr(c.vae, "beta", 2.0), "no use for vae.beta"),
        (lambda c: setattr(c, "views", 2), "one view of each; received views 2"),
        (lambda c: setattr(c.optim, "precision", "tf32"), "computes in float32 or bfloat16"),
        (lambda c: setattr(c.vae, "prior", {"name": "uniform_codes", "codes": 0}), "codes >= 1"),
    ],
)
def test_what_cannot_work_is_told_before_any_image_is_read(tmp_path: Path, change, says: str) -> None:  # type: ignore[no-untyped-def]
    chosen = config(tmp_path / "run")
    chosen.data.root = str(tmp_path / "nowhere")
    change(chosen)
    with pytest.raises(InputError, match=says.replace("{", r"\{").replace(".", r"\.")):
        pretrain(chosen)
    assert not (tmp_path / "run").exists()


def test_wrong_numbers_are_refused() -> None:
    for settings, says in (
        ({"gap": 2.0}, "gap in"),
        ({"contrast": -1.0}, ">= 0"),
        ({"generator_rate": 0.0}, "generator_rate in"),
        ({"generator_rate": 1001.0}, "generator_rate in"),
    ):
        with pytest.raises(InputError, match=says):
            AdversarySection(**settings)
    with pytest.raises(InputError, match="two numbers"):
        OptimSection(betas=[0.5])


def test_the_command_draws_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(__file__).resolve().parents[3] / "configs" / "sprites" / "infogan-cr.yaml"
    folder = tmp_path / "run"
    short = ["--optim.steps", "2", "--encoder.width", "4", "--vae.decoder_width", "4", "--adversary.width", "4"]
    options = ["--data.options", '{"count": 64}', "--adversary.start", "0", "--run.device", "cpu"]
    assert main(["pretrain", "--config", str(source), *short, *options, "--run.folder", str(folder)]) == 0
    assert {p.name for p in (folder / "figures").iterdir()} >= {"samples.png", "traversal.png", "reconstructions.png"}


def test_a_branched_pair_differs_in_the_regulariser_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The branching of experiments/infogan.py changes no bit of either run."""
    from dataclasses import replace

    from experiments import infogan

    whole = infogan.config

    def small(folder: Path, seed: int, steps: int, width: int, start: float, branching: float) -> PretrainConfig:
        chosen = whole(folder, seed, steps, width, start, branching)
        return replace(chosen, data=replace(chosen.data, options={"count": 60}), batch=8)

    monkeypatch.setattr(infogan, "config", small)
    pair = infogan.trained(tmp_path, 0, 10, 4, 0.7)
    pretrain(small(tmp_path / "alone", 0, 10, 4, 0.7, 0.7))
    assert_same_run(tmp_path / "alone", pair["cr"], "vae.safetensors")
    plain, cr = (zoo.open(run).vae().state_dict() for run in pair.values())
    assert not torch.equal(plain["decoder.first.weight"], cr["decoder.first.weight"])


@pytest.mark.parametrize("from_a_run", [True, False])
def test_episodes_around_a_vae_that_has_no_kl_are_refused(tmp_path: Path, from_a_run: bool) -> None:
    if from_a_run:
        pretrain(config(tmp_path / "gan"), stripes())
        encoder = EncoderSection(source=str(tmp_path / "gan"))
    else:
        encoder = EncoderSection(backbone="infogan", width=4, latent=5)
    chosen = train_config(tmp_path / "run", encoder=encoder, mode="guided", vae=config(tmp_path).vae)
    with pytest.raises(InputError, match=r"no KL .* (mode 'finetune'|choose another prior)"):
        train(chosen, stripes())
    assert not (tmp_path / "run" / "learner.safetensors").exists()
