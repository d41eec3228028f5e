"""Neural Statistician: its divergences, its statistic network, its objectives and its guidance."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from episodes import InputError
from metagvae.encoders.controls import Pixels
from metagvae.encoders.encoder import Posterior
from metagvae.learners import make_learner
from metagvae.learners.statistician import NeuralStatistician
from metagvae.vae.hierarchical import StatisticNetwork, context_kl, gaussian_kl
from tests.support.small_learners import QUERY, TASKS, WAY, batch, build

GUIDED = {"context": 12, "excited": 8, "excitation": 3.0, "inhibition": 2.0, "mixup": 0.4}


def statistician(**options: object) -> NeuralStatistician:
    learner = build("statistician", **options)
    assert isinstance(learner, NeuralStatistician)
    return learner


def gaussians(*shape: int, seed: int = 0) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    return Posterior(torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator))


def as_normal(posterior: Posterior) -> Normal:
    return Normal(posterior.mean, (0.5 * posterior.log_var).exp())


def test_divergences_are_torchs() -> None:
    first, second = gaussians(3, 5), gaussians(3, 5, seed=1)
    assert torch.allclose(gaussian_kl(first, second), kl_divergence(as_normal(first), as_normal(second)), atol=1e-5)
    prior = Independent(Normal(torch.zeros(3, 5), torch.ones(3, 5)), 1)
    expected = kl_divergence(Independent(as_normal(first), 1), prior).mean()
    assert torch.allclose(context_kl(first), expected, atol=1e-5)


@pytest.mark.parametrize("direction", ["support_query", "query_support"])
def test_logits_are_minus_the_divergence_in_the_direction_asked_for(direction: str) -> None:
    learner = statistician(direction=direction, context=6)
    ways, queries = gaussians(1, 3, 6), gaussians(1, 4, 6, seed=1)
    logits = learner._logits(ways, queries)
    for query in range(4):
        for way in range(3):
            a = Normal(ways.mean[0, way], (0.5 * ways.log_var[0, way]).exp())
            b = Normal(queries.mean[0, query], (0.5 * queries.log_var[0, query]).exp())
            first, second = (a, b) if direction == "support_query" else (b, a)
            assert math.isclose(float(logits[0, query, way]), -float(kl_divergence(first, second).sum()), rel_tol=1e-4)


def test_statistics_of_sets_of_any_size_in_any_order() -> None:
    network = StatisticNetwork(5, 4, 8)
    sets = torch.randn(2, 6, 5)
    whole, shuffled = network(sets), network(sets[:, torch.randperm(6)])
    assert torch.allclose(whole.mean, shuffled.mean, atol=1e-6)
    assert network(sets[:, :1]).mean.shape == (2, 4)
    # the mean over the set alone would not know that two copies are more evidence than one
    twice = network(sets.repeat(1, 2, 1))
    assert not torch.allclose(whole.log_var, twice.log_var)


@torch.no_grad()
def test_the_elbo_is_the_papers_sum() -> None:
    learner, episodes = statistician(context=6, latent=3).eval(), batch()
    torch.manual_seed(5)
    loss, _ = learner(episodes)
    features = learner.encoder(episodes.images.flatten(0, 2)).view(TASKS * WAY, -1, learner.encoder.feature_size)
    q = learner.model.statistics(features)
    torch.manual_seed(5)
    c = q.sample()
    total = 0.0
    noise = torch.randn(features.shape[0], features.shape[1], 3)
    for number in range(len(features)):
        for picture in range(features.shape[1]):
            joint = torch.cat((features[number, picture], c[number]))
            z = learner.model.inference(joint)
            total += float(kl_divergence(as_normal(z), as_normal(learner.model.latent_prior(c[number]))).sum())
            drawn = z.mean + noise[number, picture] * (0.5 * z.log_var).exp()
            logits = learner.model.decoder(torch.cat((drawn, c[number])).unsqueeze(0))
            target = episodes.images.flatten(0, 1)[number, picture]
            total += float(F.binary_cross_entropy_with_logits(logits[0], target, reduction="sum"))
        standard = Normal(torch.zeros(6), torch.ones(6))
        total += float(kl_divergence(Normal(q.mean[number], (0.5 * q.log_var[number]).exp()), standard).sum())
    assert math.isclose(float(loss), total / features.shape[0] / features.shape[1], rel_tol=1e-4)


def test_the_homoencoder_does_not_look_at_what_it_rebuilds_for_c() -> None:
    learner = statistician(objective="homoencoder", class_size=8)
    episodes = batch()
    seen: list[torch.Tensor] = []
    learner.model.statistics.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    learner(episodes)
    assert [tuple(s.shape[-2:-1]) for s in seen] == [(2,), (1,), (2,)]  # ways, single queries, sets that encode


def test_guidance_adds_its_terms_and_reaches_its_networks() -> None:
    learner = statistician(**GUIDED)
    loss, logits = learner(batch())
    assert logits.shape == (TASKS, WAY * QUERY, WAY)
    loss.backward()
    assert learner.adversary is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learner.adversary.parameters() if p.ndim > 1)
    plain = statistician(context=12)
    assert plain.adversary is None
    assert plain.excited == 12


@torch.no_grad()
def test_excitation_asks_the_episode_both_ways_round() -> None:
    """Sets of the support's size answer single queries, and sets of the queries' size single supports."""
    losses = []
    for weight in (1.0, 3.0):
        learner = statistician(**GUIDED | {"excitation": weight}).eval()
        torch.manual_seed(3)
        losses.append(float(learner(batch())[0]))
    episodes, expected = batch(), 0.0
    for support, query in ((episodes.support, episodes.query), (episodes.query, episodes.support)):
        logits = learner.predict(learner.adapt(support), query)
        labels = torch.arange(WAY).repeat_interleave(query.shape[2]).expand(TASKS, -1)
        expected += float(F.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-3)


@torch.no_grad()
def test_mixed_queries_answer_for_both_their_classes_by_their_shares() -> None:
    learner = statistician(**GUIDED).train()
    size, labels = learner.encoder.feature_size, torch.arange(3).repeat_interleave(2).expand(2, -1)
    state, query = learner.fit_head(torch.randn(2, 3, 1, size)), torch.randn(2, 3, 2, size)
    torch.manual_seed(3)
    loss = learner._excitation(state, query)
    torch.manual_seed(3)
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    order = torch.randperm(6)
    assert 0.02 < share < 0.98
    assert not torch.equal(labels[0], labels[0][order])
    rows, total = query.flatten(1, 2), 0.0
    for task in range(2):
        for number, other in enumerate(order.tolist()):
            mixed = share * rows[task, number] + (1 - share) * rows[task, other]
            alone = learner.model.statistics(mixed[None, None, None])
            own = Posterior(state.mean[task : task + 1], state.log_var[task : task + 1])
            said = learner._logits(own, alone)[0, 0].log_softmax(-1)
            total -= float(share * said[labels[task, number]] + (1 - share) * said[labels[task, other]])
    assert float(loss) == pytest.approx(total / 12, rel=1e-4)


def test_the_homoencoder_divides_the_contexts_divergence_by_the_classs_size() -> None:
    losses = []
    for size in (1, 10**9):
        learner = statistician(objective="homoencoder", class_size=size).eval()
        torch.manual_seed(2)
        losses.append(float(learner(batch())[0].detach()))
    with torch.no_grad():
        features, _ = learner.embed(batch().support)
        divergence = float(context_kl(learner.fit_head(features)))
    assert losses[0] - losses[1] == pytest.approx(divergence, rel=1e-2)


@pytest.mark.parametrize("weights", [{"excitation": 3.0}, {"inhibition": 2.0}])
def test_either_guidance_works_without_the_other(weights: dict[str, float]) -> None:
    learner = statistician(context=12, excited=8, **weights)
    learner(batch())[0].backward()
    assert learner.excited == 8
    assert (learner.adversary is not None) == ("inhibition" in weights)


def test_the_adversarys_own_loss_does_not_reach_the_encoder() -> None:
    learner = statistician(**GUIDED)
    ways = torch.randn(2, 3, 12, requires_grad=True)
    queries = torch.randn(2, 6, 12, requires_grad=True)
    labels = torch.arange(3).repeat_interleave(2).expand(2, -1)
    learner.inhibition = 0.0
    learner._inhibition(ways, queries, labels).backward()
    assert ways.grad is None or ways.grad.abs().sum() == 0
    learner.inhibition = 1.0
    weight = learner.adversary.weight  # type: ignore[union-attr]
    before = weight.grad.clone()
    weight.grad = None
    learner._inhibition(ways, queries, labels).backward()
    assert torch.allclose(weight.grad, before)
    assert ways.grad is not None
    assert ways.grad[..., :8].abs().sum() == 0
    assert ways.grad[..., 8:].abs().sum() > 0


@torch.no_grad()
def test_confusion_is_zero_where_the_rest_says_nothing() -> None:
    learner = statistician(**GUIDED)
    same = torch.ones(1, 3, 12)
    labels = torch.arange(3).expand(1, -1)
    uniform = float(learner._inhibition(same, same, labels))
    assert math.isclose(uniform, math.log(3), rel_tol=1e-4)  # the adversary's cross entropy alone


@torch.no_grad()
def test_a_rest_that_tells_classes_apart_costs_the_encoder() -> None:
    learner = statistician(**GUIDED)
    apart = 2 * torch.eye(3, 12).roll(8, -1).unsqueeze(0)  # each class has a unit of its own among the last four
    labels = torch.arange(3).expand(1, -1)
    weighed = []
    for weight in (0.0, 1.0, 2.0):
        learner.inhibition = weight
        weighed.append(float(learner._inhibition(apart, apart, labels)))
    assert weighed[0] < math.log(3) - 0.1  # the adversary sees them
    assert weighed[1] > weighed[0] + 0.05
    assert weighed[2] - weighed[0] == pytest.approx(2 * (weighed[1] - weighed[0]), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "elbo"}, "'statistician' or 'homoencoder'"),
        ({"direction": "both"}, "'support_query' or 'query_support'"),
        ({"excitation": -1.0}, ">= 0"),
        ({"generative": 0.0}, "prototypical"),
        ({"inhibition": 1.0, "excited": 64}, "excited < context"),
        ({"excitation": 1.0, "excited": 65}, "excited <= context"),
    ],
)
def test_senseless_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        statistician(**options)


def test_a_network_that_resizes_its_pictures_is_refused() -> None:
    encoder = build("prototypes").encoder
    encoder.config.backbone = "timm:resnet18"
    encoder.__class__ = type("Resizing", (type(encoder),), {"has_posterior": False})
    with pytest.raises(InputError, match="received timm:resnet18"):
        make_learner("statistician", encoder, 3)


def test_it_needs_an_encoder_that_knows_its_pictures() -> None:
    with pytest.raises(InputError, match="metagvae Encoder"):
        make_learner("statistician", Pixels(), 3)
