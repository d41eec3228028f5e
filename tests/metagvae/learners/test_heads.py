"""Heads on features: prototypes against a plain loop, ridge against scikit-learn, gradients, permutation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from episodes import EpisodeBatch, InputError
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.learners import LEARNERS, FeatureLearner, make_learner
from metagvae.learners.prototypes import PrototypicalNetwork
from metagvae.learners.ridge import RidgeRegression

TASKS, WAY, SHOT, QUERY, SIZE = 2, 3, 2, 4, 7


class Features(nn.Module):
    """Stands in for an encoder whose features are given."""

    feature_size = SIZE

    def forward(self, x: Tensor) -> Tensor:
        return x


def make_features(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(TASKS, WAY, 1, SIZE, generator=generator, dtype=torch.float64)
    noise = torch.randn(TASKS, WAY, SHOT + QUERY, SIZE, generator=generator, dtype=torch.float64)
    features = centre + 0.7 * noise
    return features[:, :, :SHOT], features[:, :, SHOT:]


def ask(learner: FeatureLearner, support: Tensor, query: Tensor) -> Tensor:
    return learner.ask_head(learner.fit_head(support), query)


@pytest.mark.parametrize(("distance", "power"), [("euclidean", 0), ("euclidean", 0.5), ("euclidean", 1), ("cosine", 0)])
def test_prototypes_are_a_plain_loop(distance: str, power: float) -> None:
    support, query = make_features()
    learner = PrototypicalNetwork(Features(), distance=distance, scale=2.5, normalise=power).double()
    logits = ask(learner, support, query).detach()
    assert logits.shape == (TASKS, WAY * QUERY, WAY)
    for task in range(TASKS):
        for row, raw in enumerate(query[task].flatten(0, 1)):
            asked = raw / math.sqrt(float(raw @ raw)) ** power
            for way in range(WAY):
                prototype = (
                    torch.stack([z / math.sqrt(float(z @ z)) ** power for z in support[task, way]]).sum(0) / SHOT
                )
                if distance == "euclidean":
                    expected = -2.5 * float(((asked - prototype) ** 2).sum())
                else:
                    expected = 2.5 * float(asked @ prototype / asked.norm() / prototype.norm())
                # the learnt scale starts as a float32
                assert float(logits[task, row, way]) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_ridge_is_scikit_learn(penalty: float, normalise: bool) -> None:
    support, query = make_features()
    learner = RidgeRegression(Features(), penalty=penalty, scale=3.0, normalise=normalise).double()
    with torch.no_grad():
        learner.log_penalty.fill_(math.log(penalty))
        learner.log_scale.fill_(math.log(3.0))
        learner.shift.fill_(0.5)
    logits = ask(learner, support, query).detach().numpy()
    labels = np.eye(WAY).repeat(SHOT, 0)
    for task in range(TASKS):
        rows = [part[task].flatten(0, 1) for part in (support, query)]
        if normalise:
            rows = [F.normalize(part, dim=-1) for part in rows]
        # the paper's bias is a column of ones, penalised as the others are
        fit, asked = (np.c_[part.numpy(), np.ones(len(part))] for part in rows)
        expected = Ridge(alpha=penalty, fit_intercept=False, solver="svd").fit(fit, labels).predict(asked)
        np.testing.assert_allclose(logits[task], 3.0 * expected + 0.5, rtol=1e-9, atol=1e-11)
        # the primal form, by the normal equations
        weights = np.linalg.solve(fit.T @ fit + penalty * np.eye(SIZE + 1), fit.T @ labels)
        np.testing.assert_allclose(logits[task], 3.0 * asked @ weights + 0.5, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("prototypes", {}),
        ("prototypes", {"distance": "cosine"}),
        ("prototypes", {"normalise": 0.5}),
        ("ridge", {"penalty": 0.5}),
        ("ridge", {"normalise": True}),
        ("anil", {"inner_lr": 0.5, "inner_steps": 3}),
    ],
)
def test_gradient_is_that_of_finite_differences(name: str, options: dict[str, object]) -> None:
    """In the features and in the head's own parameters."""
    torch.manual_seed(0)
    learner = make_learner(name, Features(), WAY, **options).double()
    assert isinstance(learner, FeatureLearner)
    support, query = make_features()
    labels = torch.arange(WAY).repeat_interleave(QUERY).repeat(TASKS)
    names = [key for key, _ in learner.named_parameters()]

    class Loss(nn.Module):
        def __init__(self, learner: FeatureLearner) -> None:
            super().__init__()
            self.learner = learner

        def forward(self, support: Tensor, query: Tensor) -> Tensor:
            return F.cross_entropy(ask(self.learner, support, query).flatten(0, 1), labels)

    module = Loss(learner)

    def loss(support: Tensor, query: Tensor, *values: Tensor) -> Tensor:
        weights = {f"learner.{key}": value for key, value in zip(names, values, strict=True)}
        return torch.func.functional_call(module, weights, (support, query))

    values = [value.detach().clone().requires_grad_() for value in learner.parameters()]
    assert torch.autograd.gradcheck(loss, (support.requires_grad_(), query.requires_grad_(), *values))


@pytest.mark.parametrize("name", ["prototypes", "ridge"])
def test_every_role_is_the_mean_over_the_episodes_of_the_same_pictures(name: str) -> None:
    """With 2 + 4 pictures a class: pictures 0 and 1 as support, then 2 and 3, then 4 and 5."""
    torch.manual_seed(0)
    pictures = torch.cat(make_features(), 2)
    learner = make_learner(name, nn.Flatten(), WAY, roles="every").double()
    given = make_learner(name, nn.Flatten(), WAY).double()
    images, classes = pictures[..., None, None], torch.zeros(TASKS, WAY, dtype=torch.int64)
    indices = torch.zeros(TASKS, WAY, SHOT + QUERY, dtype=torch.int64)
    losses = []
    for first in (0, 2, 4):
        order = [first, first + 1, *(p for p in range(6) if p not in (first, first + 1))]
        losses.append(float(given(EpisodeBatch(images[:, :, order], SHOT, classes, indices))[0].detach()))
    episode = EpisodeBatch(images, SHOT, classes, indices)
    assert len({round(loss, 6) for loss in losses}) == 3
    assert float(learner(episode)[0].detach()) == pytest.approx(sum(losses) / 3)
    assert float(learner.eval()(episode)[0].detach()) == pytest.approx(losses[0])
    with pytest.raises(InputError, match="the norm 'support' has other statistics for each choice"):
        make_learner(name, Encoder(EncoderConfig(width=8, latent=6, norm="support")), WAY, roles="every")
    with pytest.raises(InputError, match="multiple of shot = 4"):
        learner.train()(EpisodeBatch(images, 4, classes, indices))


@pytest.mark.parametrize("name", sorted(set(LEARNERS) - {"statistician"}))  # which sees pictures: in its own file
def test_logits_permute_with_the_ways(name: str) -> None:
    """Whatever the order of the ways, if no way has a head's output of its own."""
    torch.manual_seed(0)
    learner = make_learner(name, Features(), WAY).double()
    support, query = make_features()
    if not isinstance(learner, FeatureLearner) or not learner.any_way:
        assert not learner.any_way
        pytest.skip(f"{name} has a head whose outputs start apart")
    order = torch.tensor([2, 0, 1])
    logits = ask(learner, support, query).unflatten(1, (WAY, QUERY))
    permuted = ask(learner, support[:, order], query[:, order]).unflatten(1, (WAY, QUERY))
    torch.testing.assert_close(permuted, logits[:, order][..., order])
    labels = torch.arange(WAY).repeat_interleave(QUERY)
    assert float((logits.flatten(1, 2).argmax(-1) == labels).double().mean()) > 0.5


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("prototypes", {"distance": "manhattan"}, "distance"),
        ("prototypes", {"scale": -1.0}, "scale"),
        ("prototypes", {"roles": "all"}, "roles"),
        ("ridge", {"penalty": 0.0}, "penalty"),
        ("ridge", {"scale": 0.0}, "scale"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        make_learner(name, Features(), WAY, **options)
