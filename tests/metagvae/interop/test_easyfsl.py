"""easyfsl: its methods as learners beside its own loop, our encoders as its backbones, our heads against its."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from episodes import Episodes, EpisodeSampler, EpisodeShape, InputError, make_batch
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.interop.easyfsl import EasyfslLearner, as_easyfsl_backbone, method_names
from metagvae.learners import PrototypicalNetwork, SoftKMeans
from tests.support.banks import stripes

methods = pytest.importorskip("easyfsl.methods", reason="easyfsl is not installed: pip install easyfsl==1.5.0")

WAY, SHOT, QUERY, TASKS, SIZE = 4, 2, 5, 3, 6
TRANSDUCTIVE = {"BDCSPN", "LaplacianShot", "PTMAP", "TIM", "TransductiveFinetuning"}


class Features(nn.Module):
    """Stands in for an encoder whose features are given."""

    feature_size = SIZE

    def forward(self, x: Tensor) -> Tensor:
        return x


def make_features() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    centre = 2 * torch.rand(TASKS, WAY, 1, SIZE, generator=generator)
    features = centre + 0.4 * torch.rand(TASKS, WAY, SHOT + QUERY, SIZE, generator=generator)
    return features[:, :, :SHOT], features[:, :, SHOT:]


def scores(learner: Any, support: Tensor, query: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = learner.eval().ask_head(learner.fit_head(support), query)
    return found


def test_every_method_of_easyfsl_is_there() -> None:
    assert method_names() == [
        "BDCSPN",
        "FEAT",
        "Finetune",
        "LaplacianShot",
        "MatchingNetworks",
        "PTMAP",
        "PrototypicalNetworks",
        "RelationNetworks",
        "SimpleShot",
        "TIM",
        "TransductiveFinetuning",
    ]


@pytest.mark.parametrize("name", method_names())
def test_a_method_gives_what_its_own_loop_gives(name: str) -> None:
    torch.manual_seed(0)
    learner = EasyfslLearner(Features(), name).eval()
    support, query = make_features()
    found = scores(learner, support, query)
    assert found.shape == (TASKS, WAY * QUERY, WAY)
    assert learner.transductive == (name in TRANSDUCTIVE) == learner.method.is_transductive()
    labels = torch.arange(WAY).repeat_interleave(SHOT)
    cells = (1, 1) if name == "RelationNetworks" else ()
    for task in range(TASKS):
        with torch.no_grad():
            learner.method.process_support_set(support[task].reshape(-1, SIZE, *cells), labels)
            expected = learner.method(query[task].reshape(-1, SIZE, *cells))
        assert torch.allclose(found[task], expected, atol=1e-6)


@pytest.mark.parametrize("name", method_names())
def test_it_says_rightly_whether_queries_see_each_other(name: str) -> None:
    torch.manual_seed(0)
    # TIM and its kin move the prototypes by some 1e-4 a step at first
    options = {"fine_tuning_lr": 0.05} if name in ("TIM", "TransductiveFinetuning") else {}
    learner = EasyfslLearner(Features(), name, **options)
    support, query = make_features()
    whole = scores(learner, support, query)
    changed = query.clone()
    changed[:, 1:] = changed[:, 1:].flip(-1)
    same = torch.allclose(whole[:, :QUERY], scores(learner, support, changed)[:, :QUERY], atol=1e-5)
    assert same != learner.transductive


def test_their_prototypes_are_ours() -> None:
    bank = stripes()
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(width=8, size=16, polarity="light", features=["backbone"])).eval()
    ours, theirs = PrototypicalNetwork(encoder).eval(), EasyfslLearner(encoder, "PrototypicalNetworks").eval()
    batch = make_batch(bank, EpisodeSampler(bank, Episodes(EpisodeShape(WAY, SHOT, QUERY))).span(0, 5))
    with torch.no_grad():
        state = ours.adapt(batch.support)
        logits = ours.predict(state, batch.query)
        # theirs are distances, ours minus their squares
        assert torch.allclose(theirs(batch)[1].square().neg(), logits, atol=1e-4)
        for task in range(5):
            labels = torch.arange(WAY).repeat_interleave(SHOT)
            method = methods.PrototypicalNetworks(as_easyfsl_backbone(encoder))
            method.process_support_set(batch.support[task].flatten(0, 1), labels)
            assert torch.allclose(method.prototypes, state.head[task], atol=1e-6)
            found = method(batch.query[task].flatten(0, 1))
            assert torch.equal(found.argmax(-1), logits[task].argmax(-1))


@pytest.mark.parametrize("name", ["FEAT", "MatchingNetworks", "RelationNetworks"])
def test_a_method_with_weights_trains_in_our_loop(name: str) -> None:
    torch.manual_seed(0)
    learner = EasyfslLearner(Features(), name).train()
    support, query = make_features()
    labels = torch.arange(WAY).repeat_interleave(QUERY).repeat(TASKS)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        logits = learner.ask_head(learner.fit_head(support), query)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_relation_networks_take_our_encoders_maps() -> None:
    encoder = Encoder(EncoderConfig(width=8, size=16, features=["backbone"])).eval()
    method = methods.RelationNetworks(as_easyfsl_backbone(encoder, maps=True), feature_dimension=8).eval()
    method.process_support_set(torch.rand(4, 1, 16, 16), torch.tensor([0, 0, 1, 1]))
    assert method(torch.rand(3, 1, 16, 16)).shape == (3, 2)


def test_what_cannot_be_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no method 'ProtoNet'; known: BDCSPN, FEAT"):
        EasyfslLearner(Features(), "ProtoNet")
    with pytest.raises(InputError, match=r"no option 'steps'; allowed: .*fine_tuning_steps"):
        EasyfslLearner(Features(), "TIM", steps=3)
    with pytest.raises(InputError, match="fine_tuning_steps must be of type int"):
        EasyfslLearner(Features(), "TIM", fine_tuning_steps=2.5)
    with pytest.raises(InputError, match="feature_size"):
        EasyfslLearner(nn.Identity(), "FEAT")
    with pytest.raises(InputError, match="no gradient"):
        EasyfslLearner(Features(), "TIM").fit_head(torch.rand(1, 2, 1, SIZE, requires_grad=True))
    with pytest.raises(InputError, match="norm policy 'support'"):
        as_easyfsl_backbone(Encoder(EncoderConfig(width=8, size=16, norm="support")))
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("easyfsl"):
            raise ImportError("No module named 'easyfsl'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install easyfsl==1\.5\.0"):
        method_names()


def plain_soft_k_means(support: Tensor, query: Tensor, steps: int) -> Tensor:
    """One task by loops over queries and ways; float64 ``[M, N]`` of squared distances."""
    means = [list(support[way].mean(0)) for way in range(WAY)]
    first = [torch.stack(mean) for mean in means]
    prototypes = list(first)
    rows = query.reshape(-1, SIZE)
    for _ in range(steps):
        weights = torch.stack([torch.stack([-((z - p) ** 2).sum() for p in prototypes]).softmax(0) for z in rows])
        prototypes = [
            (SHOT * first[way] + sum(w * z for w, z in zip(weights[:, way], rows, strict=True)))
            / (SHOT + weights[:, way].sum())
            for way in range(WAY)
        ]
    return torch.stack([torch.stack([-((z - p) ** 2).sum() for p in prototypes]) for z in rows])


def test_soft_k_means_is_a_plain_loop() -> None:
    support, query = (part.double() for part in make_features())
    found = scores(SoftKMeans(Features(), steps=4).double(), support, query)
    for task in range(TASKS):
        assert torch.allclose(found[task], plain_soft_k_means(support[task], query[task], 4), atol=1e-9)


def test_balanced_probabilities_are_theirs_of_one_plan() -> None:
    """One assignment against the plan of PT-MAP's own Sinkhorn, and as many queries of each way."""
    support, query = make_features()
    learner = SoftKMeans(Features(), balanced=True, rescalings=500, steps=1)
    prototypes = support.mean(2)
    plan = learner._logits(prototypes, query).softmax(-1)
    assert torch.allclose(plan.sum(1), torch.full((TASKS, WAY), float(QUERY)), atol=1e-3)
    theirs = methods.PTMAP(lambda_regularization=1.0)
    for task in range(TASKS):
        cost = torch.cdist(query[task].flatten(0, 1), prototypes[task]) ** 2
        assert torch.allclose(plan[task], theirs.compute_optimal_transport(cost, epsilon=1e-7), atol=1e-3)


def test_soft_k_means_refuses_what_is_out_of_range() -> None:
    with pytest.raises(InputError, match="between 1 and 1000; received 0 and 10"):
        SoftKMeans(Features(), steps=0)
