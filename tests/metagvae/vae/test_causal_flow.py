"""The causal prior against autograd, scipy, Monte Carlo and a structural model of known effects."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from episodes import InputError
from metagvae import zoo
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import DataConfig, EncoderSection, PretrainConfig, TrainConfig, VAESection
from metagvae.encoders.encoder import Encoder, EncoderConfig, Posterior
from metagvae.guidance import GuidanceContext
from metagvae.runs.signals import Interrupted
from metagvae.storage.tensors import read_tensors, write_tensors
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain
from metagvae.vae.decoders import Decoder
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.priors import CausalFlow, StandardNormal

PENDULUM = {"angle": [], "light": [], "length": ["angle", "light"], "middle": ["angle", "light"]}
CHAIN = {"c": ["b"], "b": ["a"], "a": []}  # written against its order


def make(graph: dict[str, list[str]], units: int = 2, rest: int = 2, **options: Any) -> CausalFlow:
    """A float64 prior over a graph and ``rest`` further units, far from the standard normal."""
    torch.manual_seed(0)
    groups = {name: list(range(units * i, units * (i + 1))) for i, name in enumerate(graph)}
    groups["content"] = list(range(units * len(graph), units * len(graph) + rest))
    ranges = dict.fromkeys(graph, (-2.0, 4.0))
    prior = CausalFlow(GuidanceContext(1, 28, groups, {}, ranges), graph, units, **options).double()
    with torch.no_grad():
        for weight in prior.parameters():
            weight.add_(0.4 * torch.randn_like(weight))
    return prior


def columns(prior: CausalFlow, *names: str) -> list[int]:
    """Latent unit numbers of factors."""
    units = dict(zip(prior.order, prior.nodes, strict=True))
    return [int(unit) for name in names for unit in units[name].own.numbers]  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("graph", [PENDULUM, CHAIN])
def test_the_log_determinant_is_that_of_autograd(graph: dict[str, list[str]]) -> None:
    prior = make(graph)
    z = torch.randn(6, prior.latent, dtype=torch.float64)
    for row in z:
        jacobian = torch.autograd.functional.jacobian(lambda x: prior.noise(x[None])[0], row)
        determinant = torch.linalg.slogdet(jacobian)[1]
        noise = prior.noise(row[None])[0]
        expected = torch.distributions.Normal(0, 1).log_prob(noise).sum() + determinant
        assert torch.allclose(prior.log_prob(row[None], {})[0], expected, rtol=0, atol=1e-6)
        assert determinant.abs() > 0.1  # it is no volume-preserving map


@pytest.mark.parametrize("graph", [PENDULUM, CHAIN])
def test_effects_are_the_inverse_of_noise(graph: dict[str, list[str]]) -> None:
    prior = make(graph)
    z = torch.randn(50, prior.latent, dtype=torch.float64)
    assert float((prior.effects(prior.noise(z)) - z).abs().max()) < 1e-6
    assert float((prior.noise(prior.effects(z)) - z).abs().max()) < 1e-6


@pytest.mark.parametrize("graph", [PENDULUM, CHAIN])
def test_the_jacobians_are_zero_exactly_where_nothing_causes(graph: dict[str, list[str]]) -> None:
    prior = make(graph)
    row = torch.randn(prior.latent, dtype=torch.float64)
    parents = torch.autograd.functional.jacobian(lambda x: prior.noise(x[None])[0], row)
    ancestors = torch.autograd.functional.jacobian(lambda x: prior.effects(x[None])[0], row)
    reach = {name: set(causes) for name, causes in graph.items()}
    for _ in graph:
        reach = {n: c | {a for cause in c for a in reach[cause]} for n, c in reach.items()}
    for name in graph:
        for other in graph:
            block = parents[columns(prior, name)][:, columns(prior, other)]
            through = ancestors[columns(prior, name)][:, columns(prior, other)]
            if name == other:
                eye = torch.eye(len(block), dtype=torch.bool)
                assert torch.equal(block != 0, eye)
                assert torch.equal(through != 0, eye)
            else:
                assert bool((block != 0).all()) if other in graph[name] else not bool(block.any())
                assert bool((through != 0).all()) if other in reach[name] else not bool(through.any())
    rest = [unit for unit in range(prior.latent) if unit not in columns(prior, *graph)]
    assert torch.equal(parents[rest][:, rest], torch.eye(len(rest), dtype=torch.float64))


def test_an_intervention_moves_descendants_alone() -> None:
    for graph in (PENDULUM, CHAIN):
        prior = make(graph)
        z = torch.randn(9, prior.latent, dtype=torch.float64)
        for name in graph:
            moved = prior.intervene(z, {name: torch.full((9,), 3.0)})
            below = {name}
            for factor in prior.order:
                below |= {factor} if below & set(graph[factor]) else set()
            changed = (moved != z).any(0)
            expected = torch.zeros(prior.latent, dtype=torch.bool)
            expected[columns(prior, *below)] = True
            assert torch.equal(changed, expected), name  # what does not descend is equal bit for bit
            # every effect keeps its noise
            effects = columns(prior, *(below - {name}))
            assert torch.allclose(prior.noise(moved)[:, effects], prior.noise(z)[:, effects], atol=1e-6)
            same = prior.intervene(z, {name: z[:, columns(prior, name)]})
            assert torch.allclose(same, z, atol=1e-6)


def test_a_number_sets_the_mean_given_the_label() -> None:
    prior = make(PENDULUM)
    z = torch.randn(3, prior.latent, dtype=torch.float64)
    own = columns(prior, "light")
    moved = prior.intervene(z, {"light": torch.tensor([-2.0, 1.0, 4.0])})[:, own]
    again = prior.intervene(torch.randn_like(z), {"light": torch.tensor([-2.0, 1.0, 4.0])})[:, own]
    assert torch.equal(moved, again)  # whatever it was before
    # draws given the label lie around it
    torch.manual_seed(0)
    drawn = prior.float().sample(40_000, {"light": torch.full((40_000,), 1.0)})[:, own].double()
    deviation = drawn.std(0) / 200
    assert bool(((drawn.mean(0) - moved[1]).abs() < 4 * deviation).all())
    # and the density given the label is theirs
    told = {"light": torch.ones(2, dtype=torch.float64)}
    prior.double()
    given = torch.distributions.Normal(moved[1], drawn.std(0))
    at = torch.randn(2, prior.latent, dtype=torch.float64)
    at[1] = at[0]
    at[1, own] = at[0, own] + 0.1 * drawn.std(0)
    free, known = prior.log_prob(at, {}), prior.log_prob(at, told)
    roots = -0.5 * prior.noise(at)[:, own].square().sum(-1)
    assert torch.allclose((known - free).diff(), (given.log_prob(at[:, own]).sum(-1) - roots).diff(), atol=0.02)


def test_the_density_given_a_label_begins_around_it() -> None:
    prior = make(CHAIN, rest=0, label_spread=0.2)
    labels = {name: torch.tensor([-2.0, 1.0, 2.5]).double() for name in CHAIN}
    scaled = torch.tensor([-1.0, 0.0, 0.5]).double()[:, None]
    with torch.no_grad():
        for node in prior.nodes:
            for weight in node.of_label.parameters():  # type: ignore[union-attr]
                weight.zero_()
    z = torch.randn(3, prior.latent, dtype=torch.float64)
    expected = torch.distributions.Normal(scaled, 0.2).log_prob(z).sum(1)
    assert torch.allclose(prior.log_prob(z, labels), expected, rtol=0, atol=1e-9)
    assert torch.allclose(prior.intervene(z, labels), scaled.expand_as(z), rtol=0, atol=1e-9)
    with pytest.raises(InputError, match="label_spread must be in"):
        make(CHAIN, label_spread=0.0)


def test_the_kl_of_each_unit_is_the_expected_log_ratio() -> None:
    prior = make(CHAIN)
    torch.manual_seed(1)
    mean, log_var = torch.randn(1, prior.latent, dtype=torch.float64), torch.randn(1, prior.latent, dtype=torch.float64)
    one = Posterior(mean, log_var)
    many = Posterior(mean.expand(40_000, -1), log_var.expand(40_000, -1))
    z = many.mean + torch.randn_like(many.mean) * (0.5 * many.log_var).exp()
    ratio = one.log_prob(z) - prior.log_prob(z, {})
    exact = prior.kl(many, z, {})  # given each draw of the causes
    error = float((ratio - exact).std()) / 40_000**0.5
    assert abs(float((ratio - exact).mean())) < 4 * error
    assert float(exact.std()) < float(ratio.std())  # and it is less noisy
    assert torch.allclose(prior.kl_per_unit(many, z, {}).sum(-1), exact)


def test_without_an_arrow_it_begins_as_the_standard_normal() -> None:
    graph: dict[str, list[str]] = {"a": [], "b": []}
    context = GuidanceContext(1, 28, {"a": [0, 1], "b": [2, 3]}, {}, dict.fromkeys(graph, (0.0, 1.0)))
    prior, normal = CausalFlow(context, graph, 2), StandardNormal(context)
    posterior = Posterior(torch.randn(5, 4), torch.randn(5, 4))
    assert torch.allclose(prior.kl(posterior, posterior.mean, {}), normal.kl(posterior, posterior.mean, {}), atol=1e-6)


def linear(
    prior: CausalFlow, weights: dict[str, list[float]], scales: dict[str, float], shifts: dict[str, float]
) -> None:
    """Makes each mechanism ``scale * z - weights . causes + shift``: its hidden units stay where ELU is straight."""
    with torch.no_grad():
        for name, node in zip(prior.order, prior.nodes, strict=True):
            network: Any = node.network
            free = float(np.log(scales[name]))
            given = free / (1 - abs(free / np.log(1e-3)))  # zuko bends the log of a scale
            if not prior.graph[name]:
                network.phi[0].fill_(shifts[name])
                network.phi[1].fill_(given)
                continue
            first, last = network.hyper[0], network.hyper[2]
            for layer in (first, last):
                layer.weight.zero_()
                layer.bias.zero_()
            for number, weight in enumerate(weights[name]):
                first.weight[number, number], first.bias[number] = 1.0, 100.0
                last.weight[0, number] = -weight
            last.bias[0] = shifts[name] + 100.0 * sum(weights[name])
            last.bias[1] = given


def test_a_linear_graph_has_the_density_of_a_normal() -> None:
    graph = {"a": [], "b": ["a"], "c": ["a", "b"], "d": ["c"]}
    prior = make(graph, units=1, rest=0)
    weights = {"b": [0.7], "c": [-1.2, 0.5], "d": [2.0]}
    scales = {"a": 0.5, "b": 2.0, "c": 1.5, "d": 0.8}
    shifts = {"a": 0.3, "b": -1.0, "c": 0.0, "d": 0.7}
    linear(prior, weights, scales, shifts)
    order = prior.order
    forward = np.zeros((4, 4))
    for name in order:
        forward[order.index(name), order.index(name)] = scales[name]
        for cause, weight in zip(graph[name], weights.get(name, []), strict=True):
            forward[order.index(name), order.index(cause)] = -weight
    back = np.linalg.inv(forward)
    mean = -back @ np.array([shifts[name] for name in order])
    density = multivariate_normal(mean, back @ back.T)
    z = torch.randn(20, 4, dtype=torch.float64)
    places = [columns(prior, name)[0] for name in order]
    assert np.allclose(prior.log_prob(z, {}).detach().numpy(), density.logpdf(z[:, places].numpy()), atol=1e-6)


def test_effects_of_a_known_model_are_recovered() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4000, generator=generator)
    b = 1.5 * a + 0.5 * torch.randn(4000, generator=generator)
    c = -0.8 * b + 2.0 * a + 0.3 * torch.randn(4000, generator=generator)
    data = torch.stack((a, b, c), -1)
    graph = {"a": [], "b": ["a"], "c": ["a", "b"]}
    context = GuidanceContext(1, 28, {"a": [0], "b": [1], "c": [2]}, {}, dict.fromkeys(graph, (0.0, 1.0)))
    torch.manual_seed(0)
    prior = CausalFlow(context, graph, units=1)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    for _ in range(200):
        rows = data[torch.randint(4000, (512,), generator=generator)]
        optimizer.zero_grad()
        (-prior.log_prob(rows, {}).mean()).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        at = data[:2000]
        moved = prior.intervene(at, {"a": at[:, :1] + 1}) - at
        assert float(moved[:, 1].mean()) == pytest.approx(1.5, rel=0.05)
        assert float(moved[:, 2].mean()) == pytest.approx(2.0 - 0.8 * 1.5, rel=0.05)
        moved = prior.intervene(at, {"b": at[:, 1:2] + 1}) - at
        assert float(moved[:, 2].mean()) == pytest.approx(-0.8, rel=0.05)
        assert torch.equal(moved[:, 0], torch.zeros(2000))


def test_weights_rise_with_progress_and_unknown_labels_weigh_nothing() -> None:
    prior = make(CHAIN, flow_weight=0.3, labels_weight=5.0, unlabelled_weight=2.0, ramp=0.5)
    posterior = Posterior(*(torch.randn(4, prior.latent, dtype=torch.float64) for _ in range(2)))
    z, told = posterior.mean, {"a": torch.tensor([0.0, 1.0, torch.nan, 3.0])}
    free = prior.kl(posterior, z, {})
    whole = prior.kl(posterior, z, told)
    rest = [unit for unit in range(prior.latent) if unit not in columns(prior, *CHAIN)]
    each, parts = prior.kl_per_unit(posterior, z, {}), prior.kl_per_unit(posterior, z, told)
    # unknown of image 2, and of b and c of every image
    assert torch.allclose(parts[2, columns(prior, "a", "b", "c")], 2 * each[2, columns(prior, "a", "b", "c")])
    assert torch.allclose(parts[:, columns(prior, "b", "c")], 2 * each[:, columns(prior, "b", "c")])
    assert torch.allclose(parts[:, rest], 0.3 * each[:, rest])
    low, high = -2.0, 4.0
    label = torch.tensor([[2 * (0.0 - low) / (high - low) - 1]], dtype=torch.float64)
    shift, log_scale = prior.nodes[0].affine_of_label(label, z[:1])  # type: ignore[operator]
    own = columns(prior, "a")
    given = torch.distributions.Normal(-shift / log_scale.exp(), (-log_scale).exp())
    seen = torch.distributions.Normal(posterior.mean[:1, own], (0.5 * posterior.log_var[:1, own]).exp())
    expected = 0.3 * each[:1, own] + 5 * torch.distributions.kl_divergence(seen, given)
    assert torch.allclose(parts[:1, own], expected)
    assert torch.allclose(free, each.sum(-1))
    for progress, part in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 1.0)):
        prior.progress = progress
        assert torch.allclose(prior.kl(posterior, z, told), part * whole)
    prior.progress = torch.tensor(0.25)  # as a captured step has it
    assert torch.allclose(prior.kl(posterior, z, told), 0.5 * whole)


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 1.0])
def test_free_bits_follow_the_ramp_and_draws_for_guidances_teach_it_nothing(progress: float) -> None:
    units = {name: [place] for place, name in enumerate(CHAIN)}
    context = GuidanceContext(1, 28, {**units, "content": [3, 4]}, {}, dict.fromkeys(CHAIN, (-1.0, 1.0)))
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(width=8, latent=5, units=context.units))
    vae = GuidedVAE(encoder, Decoder(5, 1, 28, 8), prior=CausalFlow(context, CHAIN, 1, ramp=0.5))
    images, labels, terms = torch.rand(6, 1, 28, 28), {name: torch.zeros(6) for name in CHAIN}, []
    for free_bits in (0.0, 1e-12):
        vae.free_bits = free_bits
        torch.manual_seed(1)
        terms.append(float(vae.losses(images, labels, progress=progress)["kl"].detach()))
    assert terms[1] == pytest.approx(terms[0], rel=1e-5, abs=1e-9)
    assert (terms[0] == 0) == (progress == 0)
    assert vae.prior.progress == 1.0
    assert not vae._draw(3).requires_grad
    assert vae.prior.sample(3, {}).requires_grad


def test_the_labels_part_sees_the_causes_where_it_is_told_to() -> None:
    child, parent = columns(make(CHAIN), "b"), columns(make(CHAIN), "a")
    told = {"b": torch.tensor([1.0, -1.0, 3.0, 0.5], dtype=torch.float64)}
    posterior = Posterior(*(torch.randn(4, 8, dtype=torch.float64) for _ in range(2)))
    moved = posterior.mean.clone()
    moved[:, parent] += 1.0
    follows = {}
    for conditional in ("labels", "labels_and_parents"):
        # the labels' part alone, of b
        prior = make(CHAIN, flow_weight=0.0, labels_weight=1.0, unlabelled_weight=0.0, conditional=conditional)
        at, beside = (prior.kl_per_unit(posterior, z, told) for z in (posterior.mean, moved))
        assert bool((at[:, child] > 0).all())
        assert torch.equal(at[:, parent], torch.zeros(4, 2, dtype=torch.float64))
        follows[conditional] = not torch.equal(at[:, child], beside[:, child])
        # by the network's own input, written out
        label = 2 * (told["b"][:, None] + 2.0) / 6.0 - 1
        seen = torch.cat((label, posterior.mean[:, parent]), 1) if conditional == "labels_and_parents" else label
        made = prior.nodes[prior.order.index("b")].of_label(seen).base  # type: ignore[operator]
        given = torch.distributions.Normal(-made.shift / made.log_scale.exp(), (-made.log_scale).exp())
        q = torch.distributions.Normal(posterior.mean[:, child], (0.5 * posterior.log_var[:, child]).exp())
        assert torch.allclose(at[:, child], torch.distributions.kl_divergence(q, given))
        # and draws given the label have that density, each around its own causes
        torch.manual_seed(0)
        drawn = prior.float().sample(50_000, {"b": torch.full((50_000,), 1.0)}).double()
        prior.double()
        slope = np.abs(np.corrcoef(drawn[:, parent + child].detach().numpy().T)[:2, 2:]).max()
        assert slope > 0.1 if conditional == "labels_and_parents" else slope < 0.03
    assert follows == {"labels": False, "labels_and_parents": True}


def config(folder: Path, **changed: Any) -> PretrainConfig:
    run = {name: changed.pop(name) for name in ("stop_after", "resume") if name in changed}
    prior = {"name": "causal_flow", "graph": PENDULUM, "units": 2, **changed.pop("prior", {})}
    return PretrainConfig(
        data=DataConfig("pendulum", options=changed.pop("data", {"hidden": ["angle"], "labelled": 0.5})),
        encoder=EncoderSection(backbone="patches", width=8, latent=changed.pop("latent", 8)),
        vae=VAESection(decoder="patches", decoder_width=4, prior=prior),
        batch=16,
        optim=OptimSection(steps=6),
        run=RunSection(folder=str(folder), device="cpu", log_every=1, **run),
    )


def test_a_run_resumes_bit_identical_and_opens_with_its_ranges(tmp_path: Path) -> None:
    vae = pretrain(config(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        pretrain(config(tmp_path / "stopped", stop_after=3))
    pretrain(config(tmp_path / "stopped", resume=True))
    whole, resumed = (read_tensors(tmp_path / name / "vae.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    opened = zoo.open(tmp_path / "whole").vae()
    prior = opened.prior
    assert isinstance(prior, CausalFlow)
    assert isinstance(vae.prior, CausalFlow)
    assert prior.ranges == vae.prior.ranges
    assert prior.ranges["angle"] == (0.0, 0.0)
    assert prior.told == ["light", "length", "middle"]
    assert opened.encoder.units == {name: [2 * i, 2 * i + 1] for i, name in enumerate(PENDULUM)}
    images = torch.rand(2, 3, 32, 32)
    assert opened.counterfactual(images, {"light": torch.tensor([60.0, 120.0])}).shape == images.shape
    assert opened.counterfactual(images, {"angle": images.flip(0)}).shape == images.shape
    for do, says in (
        ({"angle": torch.zeros(2)}, "no training image told its angle"),
        ({"light": torch.tensor([60.0, 300.0])}, r"light must be in \[54, 132.3\].*received 60, 300"),
        ({"colour": torch.zeros(2)}, "no factor 'colour'; it has angle, light, length, middle"),
    ):
        with pytest.raises(InputError, match=says):
            opened.counterfactual(images, do)


def test_a_generator_of_it_keeps_the_ranges_of_its_factors(tmp_path: Path) -> None:
    pretrain(config(tmp_path / "run"))
    trained, folder = zoo.open(tmp_path / "run"), tmp_path / "generator"
    zoo.save_generator(trained.vae(), trained.config, folder, trained.card)
    drawn = zoo.open(folder).vae()
    assert drawn.prior.settings() == trained.vae().prior.settings() != {}
    images, do = torch.rand(2, 3, 32, 32), {"light": torch.tensor([60.0, 120.0])}
    assert torch.equal(drawn.counterfactual(images, do), trained.vae().counterfactual(images, do))


def test_weights_of_another_graph_are_refused(tmp_path: Path) -> None:
    pretrain(config(tmp_path / "run"))
    path = tmp_path / "run" / "vae.safetensors"
    tensors = read_tensors(path)
    forged = {**tensors, "prior.arrows": tensors["prior.arrows"].T.contiguous()}
    write_tensors(path, forged)
    with pytest.raises(InputError, match="another graph than its config's: length -> angle, middle -> angle, length -"):
        zoo.open(tmp_path / "run").vae()
    write_tensors(path, {**tensors, "prior.nodes.2.network.mask": torch.ones(4, 4)})
    with pytest.raises(InputError, match=r"unexpected: prior\.nodes\.2\.network\.mask"):
        zoo.open(tmp_path / "run").vae()
    write_tensors(path, tensors)
    zoo.open(tmp_path / "run").vae()


def test_episodes_with_the_vae_go_on_with_its_labels(tmp_path: Path) -> None:
    pretrain(config(tmp_path / "run"))
    before = read_tensors(tmp_path / "run" / "vae.safetensors")
    train(
        TrainConfig(
            data=DataConfig("pendulum"),
            encoder=EncoderSection(source=str(tmp_path / "run")),
            mode="guided",
            episodes=EpisodeSection(3, 1, 2),
            validation=ValidationSection(every=0),
            optim=OptimSection(steps=2),
            run=RunSection(folder=str(tmp_path / "trained"), device="cpu"),
        )
    )
    after = read_tensors(tmp_path / "trained" / "vae.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("prior.") and "of_label" in name for name in moved)
    assert zoo.open(tmp_path / "trained").vae().prior.ranges == zoo.open(tmp_path / "run").vae().prior.ranges


def test_what_cannot_work_is_told_before_any_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    circle = {"a": ["b"], "b": ["c"], "c": ["a"], "d": []}
    for changed, says in (
        ({"prior": {"graph": circle}}, "no circle; a, b, c cause each other"),
        ({"prior": {"graph": {"a": ["a"]}}}, "no circle; a cause"),
        ({"prior": {"graph": {"light": ["sun"]}}}, "name each cause of 'light' once, and with its own causes"),
        ({"prior": {"graph": {}}}, "needs its graph"),
        ({"prior": {"graph": {"sun": []}}}, "names sun, which the images have no factor of; they have: angle, light"),
        ({"prior": {"units": 0}}, "units >= 1"),
        ({"prior": {"units": 3}}, "ask for 12 latent units of 8"),
        ({"prior": {"conditional": "parents"}}, "conditional must be 'labels' or"),
        ({"prior": {"ramp": 2.0}}, "ramp in"),
        ({"prior": {"labels_weight": -1.0}}, "needs weights >= 0.*labels_weight -1.0"),
        ({"prior": {"graph": PENDULUM, "name": "causal"}}, "unknown prior 'causal'"),
    ):
        with pytest.raises(InputError, match=says):
            pretrain(config(tmp_path / "run", **changed))
    plain = config(tmp_path / "run")
    plain.data = DataConfig("glyphs")
    with pytest.raises(InputError, match="no factor of; they have: none"):
        pretrain(plain)
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(InputError, match="needs the package zuko, which is not installed"):
        pretrain(config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_prior_without_causes_says_so() -> None:
    prior = StandardNormal(GuidanceContext(1, 28, {"content": [0, 1]}))
    with pytest.raises(InputError, match="'standard_normal' knows no causes, so nothing can be done to light"):
        prior.intervene(torch.zeros(1, 2), {"light": torch.zeros(1)})


def test_half_precision_leaves_the_prior_alone() -> None:
    prior = make(PENDULUM).float()
    posterior = Posterior(*(torch.randn(4, prior.latent) for _ in range(2)))
    plain = prior.kl(posterior, posterior.mean, {"light": torch.zeros(4)})
    with torch.autocast("cpu", torch.bfloat16):
        half = prior.kl(posterior, posterior.mean, {"light": torch.zeros(4)})
    assert half.dtype == torch.float32
    assert torch.equal(plain, half)
