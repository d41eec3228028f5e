"""Estimates of log p(x) against closed forms and quadrature, and the use of a latent against known answers."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

from metagvae.cli import main
from metagvae.evaluation.latent_use import active_units, mutual_information
from metagvae.evaluation.log_likelihood import (
    Estimates,
    annealed_sampling,
    evidence_bound,
    fitted_proposal,
    importance_sampling,
)
from metagvae.evaluation.student import FREEDOM, Student
from metagvae.studies.likelihood import Sampling, estimate
from metagvae.vae.guided_vae import GuidedVAE
from tests.support.linear_gaussian import SIDE, GivenEncoder, LinearGaussian
from tests.support.report_images import draw_classes


class Curved(nn.Module):
    """One unit to sixteen pixels that turn and fold: sigmoid(sin(3 z) + j z^2 / 10)."""

    def forward(self, z: Tensor) -> Tensor:
        bend = torch.linspace(-1, 1, SIDE * SIDE).double()
        return ((3 * z).sin() + bend * z.square()).unflatten(-1, (1, SIDE, SIDE))


def curved() -> GuidedVAE:
    encoder = GivenEncoder(LinearGaussian(latent=1).encoder.config).double()
    encoder.answer(torch.zeros(1).double(), torch.ones(1).double())
    return GuidedVAE(encoder, Curved(), likelihood="gaussian", sigma=0.15).double().eval()


def test_the_student_density_is_scipys_and_its_draws_are_of_it() -> None:
    torch.manual_seed(0)
    points = torch.randn(2, 400, 3).double() @ torch.tensor([[1.0, 0.5, 0], [0, 2.0, 0.3], [0, 0, 0.1]]).double() + 4
    student = Student.fit(points)
    scale = student.factor[1] @ student.factor[1].T
    expected = stats.multivariate_t(student.location[1].numpy(), scale.numpy(), df=FREEDOM)
    found = student.log_prob(points)[1]
    assert torch.allclose(found, torch.from_numpy(expected.logpdf(points[1].numpy())))
    assert torch.allclose(scale, torch.cov(points[1].T), atol=0.05, rtol=0.05)
    draws = student.draw(torch.randn(2, 50_000, Student.noise_width(3)).double())[1]
    unit = torch.linalg.solve_triangular(student.factor[1], (draws - student.location[1]).T, upper=False)
    assert all(stats.kstest(row.numpy(), stats.t(FREEDOM).cdf).pvalue > 0.001 for row in unit)


def test_a_linear_gaussian_is_within_two_standard_errors_by_both() -> None:
    model = LinearGaussian()
    expected = model.log_evidence()
    proposal = fitted_proposal(model.vae, model.images, chains=64, steps=20)
    for image in range(5):
        assert torch.allclose(proposal.location[image], model.posterior_mean(image), atol=0.15)
    sampled = importance_sampling(model.vae, model.images, proposal, 1000)
    annealed = annealed_sampling(model.vae, model.images, proposal, 64, 200)
    for found in (sampled, annealed):
        gap = found.log_p - expected
        assert float((gap / found.error).square().mean()) < 4
        assert bool((gap.abs() < 3.5 * found.error).all())
        assert float(found.error.max()) < 0.1
    assert float(sampled.effective.min()) > 400  # of 1,000: the proposal fits
    # a wrong answer would be seen: the bound of an encoder that answers N(0, I) is far below
    assert float((evidence_bound(model.vae, model.images, 200) - expected).max()) < -0.5


def test_a_curved_decoder_is_within_a_twentieth_of_a_nat_of_quadrature() -> None:
    vae = curved()
    z = torch.tensor([[0.4], [-1.3], [2.2]]).double()
    noise = 0.15 * torch.randn(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).double()
    images = vae.decode(z).detach() + noise
    grid = torch.linspace(-6, 6, 40_001).double()[:, None]
    with torch.no_grad():
        dense = [vae.log_joint(image.expand(len(grid), -1, -1, -1), grid).exp() for image in images]
    expected = torch.tensor([math.log(integrate.simpson(d.numpy(), x=grid[:, 0].numpy())) for d in dense])
    modes = [int(((d[1:-1] > d[:-2]) & (d[1:-1] > d[2:]) & (d[1:-1] > d.max() / 100)).sum()) for d in dense]
    assert max(modes) > 1  # more than a Gaussian would do for
    found, _, _ = estimate(vae, images, Sampling(images=3, samples=10_000, annealed=0))
    assert float((found.log_p - expected).abs().max()) < 0.05
    many = annealed_sampling(vae, images, fitted_proposal(vae, images, 16, 10), 1000, 100)
    # the draws differ from one kind of processor to another, so their own error is the measure
    assert float(many.error.max()) < 0.1
    assert float(((many.log_p - expected).abs() / many.error).max()) < 4


def test_an_estimate_does_not_depend_on_the_other_images() -> None:
    vae, model = curved(), LinearGaussian()
    few = Sampling(images=5, samples=50, chains=8, steps=4, annealed=5, temperatures=5)
    together, annealed, bound = estimate(vae, model.images, few)
    alone, annealed_alone, bound_alone = estimate(vae, model.images[3:4], few)
    for one, all_of_them in ((alone.log_p, together.log_p), (annealed_alone, annealed), (bound_alone, bound)):
        assert float((one[0] - all_of_them[3]).abs()) < 1e-9


def test_weights_give_the_mean_its_error_and_the_effective_number() -> None:
    weights = torch.tensor([[1.0, 3.0, 0.5, 1.5]]).double()
    found = Estimates.of_weights(weights.log())
    assert float(found.log_p) == pytest.approx(math.log(1.5))
    assert float(found.effective) == pytest.approx(36 / 12.5)
    assert float(found.error) == pytest.approx(float(weights.std(correction=1)) / 1.5 / 2)


def test_active_units_and_information_of_known_codes() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(4000, 3, generator=generator) * torch.tensor([0.9, 0.6, 0.05])
    assert active_units(mean).tolist() == [True, True, False]
    # z = mean + noise with var(mean) + var(noise) = 1: I = -log(1 - r^2) / 2 per unit
    signal = torch.tensor([0.81, 0.36]).double()
    noise = (1 - signal).log().expand(4000, 2)
    expected = float(-0.5 * (1 - signal).log().sum())
    assert mutual_information(mean[:, :2], noise) == pytest.approx(expected, abs=0.05)
    assert mutual_information(mean[:1000], torch.full((1000, 3), -30.0)) == pytest.approx(math.log(1000), abs=1e-3)
    assert mutual_information(0 * mean, 0 * mean) == pytest.approx(0, abs=1e-9)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("likelihood")
    draw_classes(root / "pictures", {"train": 4, "validation": 3, "test": 5}, each=6)
    for name, inference in (("one", '{"name": "amortised"}'), ("two", '{"name": "short_run", "start": "prior"}')):
        words = ["pretrain", "--data.name", "folder", "--data.size", "28", "--data.root", str(root / "pictures")]
        words += ["--encoder.width", "8", "--encoder.latent", "5", "--vae.decoder_width", "4", "--batch", "8"]
        words += ["--vae.inference", inference, "--optim.steps", "3"]
        assert main([*words, "--run.folder", str(root / name), "--run.device", "cpu"]) == 0
    return root / "one", root / "two"


def test_the_command_writes_what_it_prints(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--images", "4", "--samples", "50", "--chains", "8", "--steps", "4", "--annealed", "2"]
    file = tmp_path / "likelihood.json"
    done = main(["likelihood", *map(str, runs), *words, "--temperatures", "5", "--device", "cpu", "--json", str(file)])
    assert done == 0
    printed, content = capsys.readouterr().out, json.loads(file.read_text())
    assert [row["run"] for row in content["rows"]] == ["one", "two"]
    for row, found in zip(content["rows"], content["runs"], strict=True):
        assert row["log p(x), nats"] in printed
        assert found["log_likelihood"] == pytest.approx(sum(found["log_p"]) / 4)
        # 28 x 28 colour pixels, each 0 or 1, under a decoder that knows next to nothing: about a bit
        assert found["bits"] == pytest.approx(-found["log_likelihood"] / (3 * 28 * 28 * math.log(2)))
        assert 0.5 < found["bits"] < 1.5
        assert len(found["annealed"]) == 2
        assert found["log_likelihood"] > found["elbo"] - 1e-6
    assert "pixels at or above half" in content["about"]


FEW = ["--images", "4", "--samples", "10", "--chains", "4", "--steps", "2", "--annealed", "0", "--device", "cpu"]


def test_figures_of_unlike_likelihoods_are_not_subtracted(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A probability of black and white pixels, and a density of grey ones. The folders are called alike."""
    words = ["--data.name", "folder", "--data.size", "28", "--data.root", str(runs[0].parent / "pictures")]
    words += ["--encoder.width", "8", "--encoder.latent", "5", "--vae.decoder_width", "4", "--optim.steps", "1"]
    grey = tmp_path / "one"
    assert main(["pretrain", *words, "--vae.likelihood", "gaussian", "--run.folder", str(grey)]) == 0
    file = tmp_path / "likelihood.json"
    assert main(["likelihood", *map(str, runs), str(grey), *FEW, "--json", str(file)]) == 0
    content = json.loads(file.read_text())
    assert [row["run"] for row in content["rows"]] == [str(runs[0]), "two", str(grey)]
    assert [row["less the first's"] == "–" for row in content["rows"]] == [True, False, True]
    assert "others as 0 for the likelihood bernoulli;" in content["about"]
    assert "bernoulli and gaussian are of different things" in content["about"]
    assert "cross entropy" not in content["about"]
    assert main(["likelihood", str(runs[0]), *FEW, "--binarise", "false", "--json", str(file)]) == 0
    assert "cross entropy" in json.loads(file.read_text())["about"]
    capsys.readouterr()


def test_images_that_a_run_was_trained_on_are_refused_as_test_images(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = runs[0].parent / "pictures"
    for split, source in (("train", "test"), ("validation", "validation"), ("test", "train")):
        shutil.copytree(own / source, tmp_path / "turned" / split)
    assert main(["likelihood", str(runs[0]), *FEW, "--root", str(tmp_path / "turned")]) == 2
    assert "was trained on images of 4 of the 4 classes of the test split" in capsys.readouterr().err
    assert main(["likelihood", str(runs[0]), *FEW, "--split", "train"]) == 0  # asked for as such
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--images", "1"], "--images must be between 2 and"),
        (["--samples", "0"], "--samples must be between 2 and"),
        (["--temperatures", "0"], "--temperatures must be between 1"),
    ],
)
def test_senseless_numbers_are_refused(
    runs: tuple[Path, Path], words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["likelihood", str(runs[0]), *words]) == 2
    assert says in capsys.readouterr().err


def test_what_is_no_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["likelihood", "guided-vae-omniglot", "--data", "glyphs"]) == 2
    assert "guided-vae-omniglot" in capsys.readouterr().err
