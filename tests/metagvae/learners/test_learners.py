"""Properties that every registered learner must have; a new learner is tested by being registered."""

from __future__ import annotations

import pytest
import torch

from episodes import Episodes, EpisodeSampler, EpisodeShape, InputError, make_batch
from metagvae.encoders.norm import POLICIES
from metagvae.learners import LEARNERS, FeatureLearner, Learner
from tests.support.banks import stripes
from tests.support.small_learners import QUERY, SHOT, TASKS, WAY, batch, build

INDUCTIVE = [policy for policy in POLICIES if policy != "transductive"]
ALONE = [name for name, cls in LEARNERS.items() if not cls.sees_queries]


def ask(learner: Learner, support: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return learner.predict(learner.adapt(support), query)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", LEARNERS)
def test_shapes_and_loss(name: str, policy: str) -> None:
    learner, episodes = build(name, policy), batch()
    loss, logits = learner(episodes)
    assert logits.shape == (TASKS, WAY * QUERY, WAY)
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    if not learner.classifies:
        return
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), episodes.query_labels.flatten())
    assert torch.allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_gradient_reaches_every_parameter_in_use(name: str) -> None:
    learner = build(name)
    loss, _ = learner(batch())
    loss.backward()
    silent = [
        key
        for key, p in learner.named_parameters()
        if (p.grad is None or p.grad.abs().sum() == 0) and not key.startswith(("encoder.to_mean", "encoder.to_log_var"))
    ]
    # adding one number to every logit changes nothing, so a ridge head's shift learns nothing from cross entropy
    assert [key for key in silent if key != "shift"] == []


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", LEARNERS)
def test_forward_in_evaluation_is_adapt_then_predict(name: str, policy: str) -> None:
    learner, episodes = build(name, policy).eval(), batch()
    _, logits = learner(episodes)
    assert torch.allclose(logits, ask(learner, episodes.support, episodes.query), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("policy", INDUCTIVE)
@pytest.mark.parametrize("name", ALONE)
def test_inductive_a_querys_logits_do_not_see_the_other_queries(name: str, policy: str) -> None:
    learner, episodes = build(name, policy).eval(), batch()
    assert not learner.transductive
    query = episodes.query.clone()
    whole = ask(learner, episodes.support, query)
    query[:, :, 1:] = torch.rand_like(query[:, :, 1:])
    changed = ask(learner, episodes.support, query)
    first = [way * QUERY for way in range(WAY)]
    assert torch.allclose(whole[:, first], changed[:, first], atol=1e-4)
    assert not torch.allclose(whole, changed, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "policy"),
    [(name, policy) for name in LEARNERS for policy in POLICIES if policy == "transductive" or name not in ALONE],
)
def test_transductive_says_so_and_is(name: str, policy: str) -> None:
    learner, episodes = build(name, policy).eval(), batch()
    assert learner.transductive
    query = episodes.query.clone()
    whole = ask(learner, episodes.support, query)
    query[:, :, 1:] = torch.rand_like(query[:, :, 1:])
    first = [way * QUERY for way in range(WAY)]
    assert not torch.allclose(whole[:, first], ask(learner, episodes.support, query)[:, first], atol=1e-4)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", LEARNERS)
def test_tasks_do_not_touch_each_other(name: str, policy: str) -> None:
    learner, episodes = build(name, policy).eval(), batch()
    together = ask(learner, episodes.support, episodes.query)
    alone = torch.cat([ask(learner, episodes.support[t : t + 1], episodes.query[t : t + 1]) for t in range(TASKS)])
    assert torch.allclose(together, alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name, cls in LEARNERS.items() if cls.any_way])
def test_permuting_ways_permutes_logits(name: str) -> None:
    learner, episodes = build(name).eval(), batch()
    order = torch.tensor([2, 0, 1])
    before = ask(learner, episodes.support, episodes.query).view(TASKS, WAY, QUERY, WAY)
    after = ask(learner, episodes.support[:, order], episodes.query[:, order]).view(TASKS, WAY, QUERY, WAY)
    assert torch.allclose(before[:, order][..., order], after, atol=1e-3)


@pytest.mark.parametrize("name", LEARNERS)
def test_order_within_a_class_does_not_matter(name: str) -> None:
    learner, episodes = build(name).eval(), batch()
    before = ask(learner, episodes.support, episodes.query)
    assert torch.allclose(before, ask(learner, episodes.support.flip(2), episodes.query), atol=1e-3)


@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns(name: str) -> None:
    options = {"inner_lr": 0.5} if name in ("maml", "anil") else {}
    learner = build(name, **options)
    bank = stripes()
    sampler = EpisodeSampler(bank, Episodes(EpisodeShape(WAY, SHOT, QUERY)))
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], 1e-2)
    losses = []
    for step in range(60):
        loss, _ = learner(make_batch(bank, sampler.span(4 * step, 4)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    # of an ELBO most is the pictures' own noise, which nothing can learn
    assert sum(losses[-5:]) < (0.8 if learner.classifies else 0.95) * sum(losses[:5])


@pytest.mark.parametrize("name", LEARNERS)
def test_weights_survive_a_round_trip(name: str) -> None:
    learner, other = build(name).eval(), build(name).eval()
    for parameter in other.parameters():
        parameter.data.add_(0.1)
    other.load_state_dict(learner.state_dict())
    episodes = batch()
    assert torch.equal(ask(learner, episodes.support, episodes.query), ask(other, episodes.support, episodes.query))


@pytest.mark.parametrize("name", [n for n, cls in LEARNERS.items() if issubclass(cls, FeatureLearner)])
def test_more_ways_than_trained_for(name: str) -> None:
    learner = build(name)
    if not learner.any_way:
        pytest.skip("its head has a fixed number of ways")
    bank = stripes()
    episodes = make_batch(bank, EpisodeSampler(bank, Episodes(EpisodeShape(7, 1, 2))).span(0, 2))
    assert learner(episodes)[1].shape == (2, 14, 7)


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"known: .*prototypes"):
        build("protonet")
    with pytest.raises(InputError, match="allowed: distance, scale"):
        build("prototypes", temperature=1.0)
    with pytest.raises(InputError, match="cosine"):
        build("prototypes", distance="manhattan")
    with pytest.raises(InputError, match="normalise must be in"):
        build("prototypes", normalise=1.5)
    with pytest.raises(InputError, match="sees no lengths"):
        build("prototypes", distance="cosine", normalise=0.5)
