"""Supports drawn under other causes: with the scene itself as the VAE every query finds a copy of its own light."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from episodes import EpisodeLoader, Episodes, EpisodeSampler, EpisodeShape, InputError
from episodes.datasets import make_dataset
from episodes.datasets.pendulum import PendulumScene
from metagvae.cli import main
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import DataConfig, EncoderSection, PretrainConfig, VAESection
from metagvae.encoders.controls import Pixels
from metagvae.guidance import GuidanceContext
from metagvae.learners import Learner, make_learner
from metagvae.learners.counterfactual_support import CounterfactualSupport
from metagvae.training.pretraining import pretrain
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.priors import StandardNormal
from metagvae.zoo.build import factor_ranges

GRAPH = {"angle": [], "light": [], "length": ["angle", "light"], "middle": ["angle", "light"]}
SIZE = 24


class Oracle(GuidedVAE):
    """Draws counterfactuals by the scene; the factors of an image stand in a table by its bytes."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        bank = make_dataset("pendulum", size=SIZE).load("test")
        assert bank.factors is not None
        self.bank, self.scene = bank, PendulumScene(SIZE)
        self.table = dict(zip((image.numpy().tobytes() for image in bank.images), bank.factors.values, strict=True))
        self.prior = StandardNormal(GuidanceContext(3, SIZE, {"content": [0]}))
        self.prior.settings = lambda: {"light": factor_ranges(bank)["light"]}  # type: ignore[method-assign]

    def counterfactual(self, images: Tensor, do: Mapping[str, Tensor]) -> Tensor:
        keys = [image.numpy().tobytes() for image in (255 * images).round().to(torch.uint8)]
        return self.scene.render(self.scene.intervene(torch.stack([self.table[key] for key in keys]), do))


def errors(vae: Oracle, learner: Learner) -> float:
    sampler = EpisodeSampler(vae.bank, Episodes(EpisodeShape(5, 1, 8), 0, "test"))
    batch = EpisodeLoader(vae.bank, sampler, 6, torch.device("cpu"))[0]
    images = batch.images.float() / 255
    logits = learner.predict(learner.adapt(images[:, :, :1]), images[:, :, 1:])
    assert logits.shape == (6, 40, 5)
    return float((logits.argmax(-1) != torch.arange(5).repeat_interleave(8)).float().mean())


def test_supports_under_the_same_lights_are_compared_by_their_class() -> None:
    vae = Oracle()
    assert errors(vae, make_learner("prototypes", Pixels(), 5)) > 0.3
    # one light for all supports already takes away what they differ in beside the class
    assert errors(vae, CounterfactualSupport(vae, {"light": 1})) < 0.02
    assert errors(vae, CounterfactualSupport(vae, {"light": 20})) < 0.02


def test_logits_are_those_of_a_loop() -> None:
    vae = Oracle()
    learner = CounterfactualSupport(vae, {"light": 3}, Pixels())
    images = vae.bank.images[::97][:12].float() / 255
    support, query = images[:4].view(1, 2, 2, 3, SIZE, SIZE), images[4:12].view(1, 2, 4, 3, SIZE, SIZE)
    logits = learner.predict(learner.adapt(support), query)
    low, high = vae.prior.settings()["light"]
    for row, asked in enumerate(query.flatten(0, 2)):
        for way in range(2):
            apart = [
                float((vae.counterfactual(one[None], {"light": torch.tensor([light])}) - asked).square().sum())
                for one in support[0, way]
                for light in (low, (low + high) / 2, high)
            ]
            assert float(logits[0, row, way]) == pytest.approx(-min(apart), rel=1e-4)


def test_several_factors_are_set_together() -> None:
    vae = Oracle()
    ranges = {name: factor_ranges(vae.bank)[name] for name in ("light", "angle")}
    vae.prior.settings = lambda: ranges  # type: ignore[method-assign]
    image = vae.bank.images[:1].float() / 255
    copies = CounterfactualSupport(vae, {"light": 2, "angle": 3}).adapt(image[None, None])
    drawn = [
        vae.counterfactual(image, {"light": torch.tensor([light]), "angle": torch.tensor([angle])}).flatten()
        for light in ranges["light"]
        for angle in (ranges["angle"][0], sum(ranges["angle"]) / 2, ranges["angle"][1])
    ]
    assert torch.allclose(copies[0, 0], torch.stack(drawn), atol=1e-5)


def test_a_querys_logits_are_its_own() -> None:
    vae = Oracle()
    learner = CounterfactualSupport(vae, {"light": 2})
    images = vae.bank.images[::150][:6].float() / 255
    state = learner.adapt(images[:2].view(1, 2, 1, 3, SIZE, SIZE))
    one = learner.predict(state, images[2:4].view(1, 2, 1, 3, SIZE, SIZE))
    other = learner.predict(state, torch.stack((images[2], images[5])).view(1, 2, 1, 3, SIZE, SIZE))
    assert torch.equal(one[0, 0], other[0, 0])
    assert not learner.transductive


def test_what_it_cannot_draw_is_told() -> None:
    vae = Oracle()
    for do, says in (
        ({}, "such as light=8; received nothing"),
        ({"light": 0}, "received light=0"),
        ({"colour": 8}, "no numbers of colour; it has those of light"),
        ({"light": 1025}, "at most 1,024 copies .* received light=1025, 1,025 copies"),
    ):
        with pytest.raises(InputError, match=says):
            CounterfactualSupport(vae, do)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causes") / "run"
    pretrain(
        PretrainConfig(
            data=DataConfig("pendulum"),
            encoder=EncoderSection(backbone="patches", width=8, latent=8),
            vae=VAESection(
                decoder="patches", decoder_width=4, prior={"name": "causal_flow", "graph": GRAPH, "units": 2}
            ),
            batch=8,
            optim=OptimSection(steps=2),
            run=RunSection(folder=str(folder), device="cpu"),
        )
    )
    return folder


def test_evaluate_takes_it_by_a_runs_prior(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--run", str(run), "--encoder", "pixels", "--episodes", "4", "--query", "5", "--device", "cpu"]
    out = tmp_path / "e.json"
    assert main([*words, "--counterfactual", "light=2", "middle=2", "--json", str(out)]) == 0
    learners = {result["method"]: result["learner"] for result in json.loads(out.read_text())["results"]}
    assert learners == {"pixels": "prototypes", "run": "counterfactual support"}
    capsys.readouterr()
    for given, says in (
        ("light", "such as light=8; received 'light'"),
        ("light=0", "such as light=8"),
        ("colour=3", "no numbers of colour; it has those of angle, light, length, middle"),
    ):
        assert main([*words, "--counterfactual", given]) == 2
        assert says in capsys.readouterr().err


def test_intervene_draws_a_numbered_image_and_a_file(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.png"
    assert main(["intervene", str(run), "3", "--do", "light=60", "light=70,angle=10", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "do(light=60): moves length, middle; keeps angle" in said
    assert "do(light=70,angle=10): moves length, middle; keeps nothing" in said
    assert out.stat().st_size > 1000
    from PIL import Image

    image = make_dataset("pendulum").load("test").images[100].permute(1, 2, 0).numpy()
    Image.fromarray(image).save(tmp_path / "own.png")
    assert main(["intervene", str(run), str(tmp_path / "own.png"), "--do", "length=3", "--out", str(out)]) == 0
    assert "do(length=3): moves nothing else; keeps angle, light, middle" in capsys.readouterr().out
    assert main(["intervene", str(run), "5", "--do", f"light={tmp_path / 'own.png'}", "--out", str(out)]) == 0
    assert "moves length, middle" in capsys.readouterr().out
    for words, says in (
        (["5000"], "images 0 to 1826; received 5000"),
        (["3", "--do", "light"], "such as light=60 or light=other.png; received 'light'"),
        (["3", "--do", "light=500"], "light must be in [54, 132.3]"),
        (["3", "--do", "sun=5"], "no factor 'sun'"),
    ):
        assert main(["intervene", str(run), *words, "--out", str(out)]) == 2
        assert says in capsys.readouterr().err


def test_the_report_shows_counterfactuals(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(page), "--episodes", "5", "--device", "cpu"]) == 0
    text = page.read_text()
    assert "do(light = 54)" in text
    assert "do(light = 132)" in text
