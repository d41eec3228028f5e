"""One door to the posterior: a prior and an inference of a user's own, named in a config, are followed everywhere."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from episodes import InputError
from metagvae import zoo
from metagvae.cli import main
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import EncoderSection, PretrainConfig, TrainConfig, VAESection
from metagvae.demo.moving import LatentView
from metagvae.encoders.encoder import Encoder, Posterior
from metagvae.guidance import GUIDANCES, Guidance, GuidanceContext, GuidanceInputs
from metagvae.report import figures
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.run import read_config
from metagvae.runs.signals import Interrupted
from metagvae.storage.tensors import read_tensors
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.inference import INFERENCES, Inference
from metagvae.vae.priors import PRIORS, Labels, Prior
from metagvae.zoo.build import new_encoder, new_vae
from tests.support.banks import stripes
from tests.support.report_images import draw_classes

ROOT = Path(__file__).resolve().parents[3]
CONTEXT = GuidanceContext(1, 28, {"content": [0, 1, 2, 3]})
# priors that cannot do without an option: the option, the context that fits it, and labels that reach every weight
CAUSES: dict[str, list[str]] = {"light": [], "shadow": ["light"]}
NEEDS: dict[str, tuple[dict[str, Any], GuidanceContext, dict[str, Tensor]]] = {
    "causal_flow": (
        {"graph": CAUSES, "units": 2},
        GuidanceContext(1, 28, {"light": [0, 1], "shadow": [2, 3]}, {}, dict.fromkeys(CAUSES, (0.0, 1.0))),
        {name: torch.rand(5) for name in CAUSES},
    ),
    "uniform_codes": ({"codes": 4, "noise": 0}, CONTEXT, {}),
}


@PRIORS.register
class LearnedLaplace(Prior):
    """A Laplace density of a learned width: no formula for the KL, and a weight of its own."""

    name = "learned_laplace"

    def __init__(self, context: GuidanceContext, width: float = 1.0) -> None:
        super().__init__()
        self.latent, self.log_width = context.latent, nn.Parameter(torch.tensor(width).log())
        self.seen: list[float] = []
        self.labels: list[set[str]] = []

    def _density(self) -> torch.distributions.Laplace:
        return torch.distributions.Laplace(0.0, self.log_width.exp())

    def kl(self, posterior: Posterior, z: Tensor, labels: Labels) -> Tensor:
        self.seen.append(float(self.progress))
        self.labels.append(set(labels))
        return posterior.log_prob(z) - self._density().log_prob(z).sum(-1)

    def sample(self, count: int, labels: Labels) -> Tensor:
        return self._density().sample((count, self.latent))


@INFERENCES.register
class Refined(Inference):
    """Gradient steps on the reconstruction from where the encoder begins."""

    name = "refined"
    calls = 0
    inside = False

    def __init__(self, context: GuidanceContext, steps: int = 2, rate: float = 0.01) -> None:
        super().__init__()
        self.steps, self.rate = steps, rate

    def forward(self, vae: GuidedVAE, images: Tensor) -> Posterior:
        Refined.calls, Refined.inside = Refined.calls + 1, True
        first = vae.encoder.posterior(images)
        Refined.inside = False
        mean = first.mean
        for _ in range(self.steps):
            with torch.enable_grad():
                at = mean.detach().requires_grad_()
                error = vae.reconstruction(vae.decoder(at), images) * len(images)
                (slope,) = torch.autograd.grad(error, at)
            mean = mean - self.rate * slope
        return Posterior(mean, first.log_var)


@GUIDANCES.register
class Clock(Guidance):
    """A guidance that notes the run's progress, and draws the latent as grey squares."""

    name = "clock"

    def __init__(self, context: GuidanceContext) -> None:
        super().__init__()
        self.shape, self.seen = (context.channels, context.size, context.size), list[float]()

    @classmethod
    def owned_units(cls, **options: Any) -> dict[str, int]:
        return {"hand": 1}

    def forward(self, inputs: GuidanceInputs) -> dict[str, Tensor]:
        self.seen.append(float(inputs.progress))
        return {"size": inputs.posterior.mean.square().mean()}

    def unit_names(self) -> dict[int, str]:
        return {0: "the hand"}

    def drawings(self, z: Tensor) -> dict[str, Tensor]:
        return {"grey": z[:, :1, None, None].sigmoid().expand(-1, *self.shape)}


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls of ``encoder.posterior`` that did not come from the inference; counts those of the inference anew."""
    found: list[str] = []
    posterior = Encoder.posterior

    def watched(encoder: Encoder, images: Tensor) -> Posterior:
        if not Refined.inside:
            found.append("outside of the inference")
        return posterior(encoder, images)

    monkeypatch.setattr(Encoder, "posterior", watched)
    Refined.calls = 0
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short pretraining run by the ordinary command, its prior and its inference named in the config."""
    root = tmp_path_factory.mktemp("door")
    draw_classes(root / "pictures", {"train": 4, "validation": 3, "test": 5}, each=6)
    done = main(
        [
            *("pretrain", "--data.name", "folder", "--data.size", "28", "--data.root", str(root / "pictures")),
            *("--encoder.width", "8", "--encoder.latent", "5", "--vae.decoder_width", "4", "--vae.guidance"),
            *('[{"name": "clock"}]', "--vae.prior", '{"name": "learned_laplace", "width": 2.0}'),
            *("--vae.inference", '{"name": "refined", "steps": 2}', "--batch", "8", "--optim.steps", "4"),
            *("--run.folder", str(root / "run"), "--run.log_every", "1", "--run.device", "cpu"),
        ]
    )
    assert done == 0
    return root / "run"


def small_config(folder: Path, steps: int = 4, **run: Any) -> PretrainConfig:
    return PretrainConfig(
        encoder=EncoderSection(width=8, latent=6),
        vae=VAESection(decoder_width=4),
        batch=8,
        optim=OptimSection(steps=steps),
        run=RunSection(folder=str(folder), device="cpu", log_every=1, **run),
    )


def test_losses_follow(run: Path, behind: list[str]) -> None:
    vae = zoo.open(run).vae()
    assert isinstance(vae.prior, LearnedLaplace)
    assert isinstance(vae.inference, Refined)
    assert vae.prior.log_width.exp().item() != pytest.approx(2.0, abs=1e-6)  # trained and saved with the rest
    images = torch.rand(4, 3, 28, 28)
    torch.manual_seed(1)
    terms = vae.losses(images, {"class": torch.zeros(4, dtype=torch.int64)}, progress=0.25)
    assert (vae.prior.seen, vae.prior.labels, vae.prior.progress) == ([0.25], [{"class"}], 1.0)
    assert (Refined.calls, behind) == (1, [])
    torch.manual_seed(1)
    posterior = vae.infer(images)
    z = posterior.sample()
    laplace = torch.distributions.Laplace(0.0, vae.prior.log_width.exp())
    normal = torch.distributions.Normal(posterior.mean, (0.5 * posterior.log_var).exp())
    expected = (normal.log_prob(z) - laplace.log_prob(z)).sum(-1).mean()
    assert float(terms["kl"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    # two steps rebuild better than the encoder's answer alone
    with torch.no_grad():
        first = vae.encoder.posterior(images).mean
        refined = vae.reconstruction(vae.decoder(posterior.mean), images)
        assert float(refined) < float(vae.reconstruction(vae.decoder(first), images))
    assert "prior learned_laplace, inference refined" in zoo.open(run).card.method


def test_the_two_steps_leave_no_gradient_behind(run: Path) -> None:
    vae = zoo.open(run).vae()
    with torch.no_grad():
        vae.infer(torch.rand(2, 3, 28, 28))
    assert all(weight.grad is None for weight in vae.parameters())


def test_figures_follow(run: Path, behind: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tiles: list[tuple[list[Tensor], list[str]]] = []
    monkeypatch.setattr(figures, "tile", lambda rows, labels, path, title: tiles.append((list(rows), list(labels))))
    trained = zoo.open(run)
    vae, bank = trained.vae(), trained.data.make().load("test")
    figures.reconstructions(vae, bank, run / "figure.png", count=4)
    figures.traversal(vae, bank, run / "figure.png", steps=3)
    assert (Refined.calls, behind) == (3, [])
    (images, rebuilt, grey), labels = tiles[0]
    assert labels == ["image", "decoder", "grey"]
    with torch.no_grad():
        z = vae.infer(images).mean
        assert torch.equal(rebuilt, vae.decode(z))
        assert torch.equal(grey, vae.guidances[0].drawings(z)["grey"])
    assert tiles[1][1] == ["hand 0", *(f"content {unit}" for unit in range(1, 5))]  # no KL to tell


def test_the_report_follows(run: Path, behind: list[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(page), "--episodes", "10", "--device", "cpu"]) == 0
    assert Refined.calls >= 3
    assert behind == []
    text = " ".join(page.read_text().split())
    assert "The prior of this run has no KL of single units." in text
    assert "<b>the hand</b>" in text
    assert "<span>KL " not in text
    trained = zoo.open(run)
    vae, bank = trained.vae(), trained.data.make().load("test")
    with torch.no_grad():
        posterior = vae.infer(bank.images.float() / 255)
        kl = vae.kl(posterior)
    assert torch.equal(kl, vae.kl(posterior))  # one draw, the same each time
    assert f"KL from the prior {float(kl.mean()):.1f} nats" in text


def test_the_demo_follows(run: Path, behind: list[str]) -> None:
    trained = zoo.open(run)
    view = LatentView(trained.vae(), trained.data.make().load("test"))
    assert [unit.label for unit in view.units] == ["hand 0", *(f"content {unit}" for unit in range(1, 5))]
    image = view.picture(3)
    means = view.means(image)
    assert [name for _, name in view.look(image, means)] == ["image", "decoder", "grey"]
    assert (Refined.calls, behind) == (3, [])
    with torch.no_grad():
        assert means == view.vae.infer(image).mean[0].clamp(-3, 3).tolist()


def test_episodes_with_a_guided_vae_train_its_prior_too(run: Path, behind: list[str], tmp_path: Path) -> None:
    source = zoo.open(run).vae().prior
    config = TrainConfig(
        data=zoo.open(run).data,
        encoder=EncoderSection(source=str(run)),
        mode="guided",
        episodes=EpisodeSection(3, 1, 2),
        validation=ValidationSection(every=0),
        optim=OptimSection(steps=2),
        run=RunSection(folder=str(tmp_path / "run"), device="cpu"),
    )
    train(config)
    assert Refined.calls == 2
    assert behind == []
    prior = zoo.open(tmp_path / "run").vae().prior
    assert isinstance(prior, LearnedLaplace)
    assert isinstance(source, LearnedLaplace)
    assert not torch.equal(prior.log_width, source.log_width)


def test_progress_is_the_share_of_steps_taken_whether_resumed_or_not(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run")
    config.vae = VAESection(decoder_width=4, guidance=[{"name": "clock"}], prior={"name": "learned_laplace"})
    vae = pretrain(config, stripes(4, 8, 28))
    assert isinstance(vae.prior, LearnedLaplace)
    assert isinstance(vae.guidances[0], Clock)
    assert vae.prior.seen == vae.guidances[0].seen == [0.0, 0.25, 0.5, 0.75]
    config.run = RunSection(folder=str(tmp_path / "stopped"), device="cpu", stop_after=3)
    with pytest.raises(Interrupted):
        pretrain(config, stripes(4, 8, 28))
    config.run = RunSection(folder=str(tmp_path / "stopped"), device="cpu", resume=True)
    resumed = pretrain(config, stripes(4, 8, 28))
    assert isinstance(resumed.prior, LearnedLaplace)
    assert resumed.prior.seen == [0.75]
    assert torch.equal(resumed.prior.log_width, vae.prior.log_width)


def test_a_run_from_before_the_choice_opens_and_resumes_bit_identical(tmp_path: Path) -> None:
    pretrain(small_config(tmp_path / "whole"), stripes(4, 8, 28))
    with pytest.raises(Interrupted):
        pretrain(small_config(tmp_path / "old", stop_after=2), stripes(4, 8, 28))
    path = tmp_path / "old" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    del content["vae"]["prior"], content["vae"]["inference"]
    path.write_text(yaml.safe_dump(content))
    other = small_config(tmp_path / "old", resume=True)
    other.vae.prior = {"name": "learned_laplace"}
    with pytest.raises(InputError, match="another config: vae differ"):
        pretrain(other, stripes(4, 8, 28))
    pretrain(small_config(tmp_path / "old", resume=True), stripes(4, 8, 28))
    assert "prior" not in read_config(tmp_path / "old")["vae"]
    whole, old = (read_tensors(tmp_path / name / "vae.safetensors") for name in ("whole", "old"))
    assert whole.keys() == old.keys()
    assert all(torch.equal(whole[name], old[name]) for name in whole)
    losses = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in ("whole", "old")]
    assert losses[0] == losses[1]
    images = torch.rand(3, 1, 28, 28)
    vae = zoo.open(tmp_path / "old").vae()
    assert torch.equal(vae.infer(images).mean, vae.encoder.posterior(images).mean)


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_keeps_the_contract(name: str) -> None:
    torch.manual_seed(0)
    options, context, told = NEEDS.get(name, ({}, CONTEXT, {}))
    prior = PRIORS[name](context, **options)  # type: ignore[call-arg]
    mean, log_var = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    posterior = Posterior(mean, log_var)
    z = posterior.sample()
    kl = prior.kl(posterior, z, {})
    assert kl.shape == (5,)
    (kl + prior.kl(posterior, z, told)).sum().backward()
    assert all(rows.grad is not None and bool((rows.grad != 0).all()) for rows in (mean, log_var))
    assert all(weight.grad is not None for weight in prior.parameters())
    per_unit = prior.kl_per_unit(posterior, z, {})
    assert per_unit is None or torch.allclose(per_unit.sum(-1), kl)
    assert prior.sample(7, {}).shape == (7, 4)


@pytest.mark.parametrize("name", INFERENCES)
def test_every_inference_keeps_the_contract(name: str) -> None:
    section = VAESection(decoder_width=4, inference={"name": name})
    bank = stripes(3, 2, 28)
    vae = new_vae(new_encoder(EncoderSection(width=8, latent=4), section, bank, 0), section, {}).eval()
    posterior = vae.infer(bank.images.float() / 255)
    assert posterior.mean.shape == posterior.log_var.shape == (6, 4)
    posterior.mean.square().sum().backward()
    assert all(weight.grad is not None for weight in vae.encoder.to_mean.parameters())


def test_a_wrong_name_or_option_is_told_before_any_picture_is_read(tmp_path: Path) -> None:
    for changed, says in (
        ({"prior": {"name": "gaussian"}}, r"vae\.prior: unknown prior 'gaussian'; known: "),
        ({"prior": {}}, r"vae\.prior: unknown prior None; known: "),
        ({"prior": {"name": "standard_normal", "width": 2}}, r"vae\.prior: .* has no option 'width'; allowed: none"),
        ({"inference": {"name": "short"}}, r"vae\.inference: unknown inference 'short'; known: amortised"),
        ({"inference": {"name": "refined", "steps": "two"}}, r"vae\.inference: .*steps"),
    ):
        config = small_config(tmp_path / "run")
        config.data.root = str(tmp_path / "nowhere")
        config.vae = VAESection(**changed)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=says):
            pretrain(config)
    assert not (tmp_path / "run").exists()


def test_a_kl_per_unit_where_one_per_image_is_due_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    section = VAESection(decoder_width=4, prior={"name": "learned_laplace"})
    vae = new_vae(new_encoder(EncoderSection(width=8, latent=4), section, stripes(3, 2, 28), 0), section, {})
    monkeypatch.setattr(LearnedLaplace, "kl", lambda self, posterior, z, labels: z)
    with pytest.raises(InputError, match=r"'learned_laplace' must give one KL per image, \[2\]; received \[2, 4\]"):
        vae.losses(torch.rand(2, 1, 28, 28))


def going_round(text: str, classes: set[str]) -> list[str]:
    """Places in a module's text that go round the door: asks of a posterior, of a prior, or of a guidance's class.

    Building a guidance by its class is no question about it.
    """
    found = []
    tree = ast.parse(text)
    built = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".inference", "prior.kl")):
            found.append(ast.unparse(node.func))
        asked = isinstance(node, ast.Attribute) and node.attr in ("posterior", "kl_per_unit")
        if asked and ast.unparse(node) != "inputs.posterior":  # what a guidance is given
            found.append(ast.unparse(node))
        if isinstance(node, ast.Name) and node.id in classes and id(node) not in built:
            found.append(node.id)
    return found


def test_nothing_outside_the_vae_goes_round_the_door() -> None:
    classes = {cls.__name__ for cls in GUIDANCES.values() if cls.__module__.startswith("metagvae.")}
    assert "DeformablePCA" in classes
    for bad in (
        "run.vae.encoder.posterior(x)",
        "ask = encoder.posterior",
        "vae.prior.kl(p, z)",
        "vae.prior.kl_per_unit(p, z, {})",
        "self.vae.inference(vae, x)",
        "isinstance(g, DeformablePCA)",
    ):
        assert going_round(bad, classes), bad
    assert going_round("DeformablePCA(context)", classes) == []
    inside = ("metagvae/vae/", "metagvae/encoders/", "metagvae/guidance/")
    for folder in ("metagvae", "examples", "experiments", "tools", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(inside):
                assert going_round(path.read_text(), classes) == [], name
