"""The cures of MAML's inner loop, in float64: vmap, the loop, finite differences and plain autograd agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import EpisodeBatch, InputError
from metagvae.encoders.norm import task_rows
from metagvae.learners import Learner, make_learner
from metagvae.learners.anil import ANIL
from metagvae.learners.gradient_parts import gradient_part
from metagvae.learners.maml import MAML
from tests.support.inner_loops import (
    SHOT,
    TASKS,
    WAY,
    difference,
    directional,
    make_encoder,
    make_episodes,
    make_maml,
    outer_gradient,
)

CURES: dict[str, dict[str, Any]] = {
    "annealed": {"second_order_from": 0.5},
    "rates": {"rates": "learnt"},
    "losses": {"every_loss_until": 0.8},
    "zero": {"head": "zero"},
    "head": {"head_lr": 0.1, "normalise": 0.5},
    "all": {"second_order_from": 0.5, "rates": "learnt", "every_loss_until": 0.8, "head": "zero"},
}
PROGRESS = [0.0, 0.6]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks run faster on one thread than on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def spread_rates(learner: MAML | ANIL) -> None:
    """Gives learnt rates different values, so that each step and each weight matters."""
    if learner.rates is not None:
        with torch.no_grad():
            learner.rates.mul_(0.5 + torch.rand(learner.rates.shape, generator=torch.Generator().manual_seed(3)))


def cured(cure: str, norm: str = "support", **options: Any) -> MAML:
    learner = make_maml(norm, **{"inner_steps": 3, "inner_lr": 0.1, **CURES[cure], **options})
    spread_rates(learner)
    return learner


@pytest.mark.parametrize("progress", PROGRESS)
@pytest.mark.parametrize("cure", CURES)
def test_vmap_is_the_loop(cure: str, progress: float) -> None:
    """In a loop, under vmap, inner steps recomputed, and with progress as the tensor that a captured step has."""
    batch = make_episodes()
    loop = cured(cure, batching="loop")
    loop.progress = progress
    expected, logits = outer_gradient(loop, batch), loop(batch)[1]
    for options, kind in (
        ({"batching": "vmap"}, float),
        ({"batching": "vmap"}, torch.tensor),
        ({"batching": "loop", "recompute": True}, float),
        ({"batching": "loop", "threads": 2}, float),
    ):
        other = cured(cure, **options)
        other.progress = kind(progress)
        torch.testing.assert_close(other(batch)[1], logits, rtol=1e-10, atol=1e-12)
        assert difference(expected, outer_gradient(other, batch)) < (1e-11 if kind is float else 1e-6)


@pytest.mark.parametrize("progress", [0.2, 0.6])
@pytest.mark.parametrize("batching", ["loop", "vmap"])
@pytest.mark.parametrize("norm", ["support", "group"])
@pytest.mark.parametrize("cure", ["rates", "losses", "zero", "head", "all"])
def test_gradient_is_that_of_finite_differences(cure: str, norm: str, batching: str, progress: float) -> None:
    batch = make_episodes()
    learner = cured(cure, norm, batching=batching, **({"second_order_from": 0.0} if cure == "all" else {}))
    learner.progress = progress
    gradient = outer_gradient(learner, batch)
    assert ("rates" in gradient) == (learner.rates is not None)
    measured, said = directional(learner, lambda: learner(batch)[0], gradient, 0, width=1e-7)
    assert abs(measured) > 1e-3
    assert measured == pytest.approx(said, rel=2e-6)


@pytest.mark.parametrize("batching", ["loop", "vmap"])
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_second_order_begins_at_its_share(batching: str, kind: Any) -> None:
    batch = make_episodes()
    exact, still = (
        outer_gradient(make_maml("support", inner_steps=2, first_order=first), batch) for first in (False, True)
    )
    assert difference(exact, still) > 1e-2
    learner = make_maml("support", inner_steps=2, second_order_from=0.25, batching=batching)
    for progress, expected in ((0.0, still), (0.2, still), (0.25, exact), (0.9, exact)):
        learner.progress = kind(progress)
        assert difference(expected, outer_gradient(learner, batch)) < 1e-11


@pytest.mark.parametrize("name", ["maml", "anil"])
def test_losses_of_every_step_are_those_of_shorter_inner_loops(name: str) -> None:
    """The loss is the mean of the losses after 1, 2 and 3 steps at first, and the last alone from the share on."""
    batch, encoder = make_episodes(), make_encoder("support")

    def made(steps: int, **options: float) -> Learner:
        torch.manual_seed(4)
        return make_learner(name, encoder, WAY, inner_lr=0.2, inner_steps=steps, **options).double()

    losses = torch.stack([made(steps)(batch)[0].detach() for steps in (1, 2, 3)])
    assert len(set(losses.tolist())) == 3
    learner = made(3, every_loss_until=0.5)
    for progress, weights in (
        (0.0, (1 / 3, 1 / 3, 1 / 3)),
        (0.25, (1 / 6, 1 / 6, 2 / 3)),
        (0.5, (0, 0, 1)),
        (1, (0, 0, 1)),
    ):
        expected = (losses * torch.tensor(weights, dtype=losses.dtype)).sum()
        for kind in (float, torch.tensor):
            learner.progress = kind(progress)
            torch.testing.assert_close(learner(batch)[0].detach().double(), expected, rtol=1e-6, atol=1e-8)
    learner.progress = 0.0
    torch.testing.assert_close(learner.eval()(batch)[0].detach(), losses[2])  # in evaluation the answer is the last's


@pytest.mark.parametrize("batching", ["loop", "vmap"])
def test_learnt_rates_begin_as_the_fixed_ones(batching: str) -> None:
    batch = make_episodes()
    fixed, learnt = (
        make_maml("support", inner_steps=2, batching=batching, rates=rates, eval_inner_steps=4)
        for rates in ("fixed", "learnt")
    )
    assert set(learnt.state_dict()) - set(fixed.state_dict()) == {"rates"}
    assert learnt.rates is not None
    learnt.rates.data.fill_(0.4)  # it was a float32
    assert learnt.rates.shape == (2, len(list(fixed.parameters())))
    torch.testing.assert_close(learnt(batch)[1], fixed(batch)[1])
    gradient = outer_gradient(learnt, batch)
    assert bool((gradient.pop("rates").abs().amax(1) > 0).all())
    assert difference(outer_gradient(fixed, batch), gradient) < 1e-11
    torch.testing.assert_close(learnt.eval()(batch)[1], fixed.eval()(batch)[1])  # four steps of two rows of rates


def test_steps_past_those_of_training_take_the_last_rates() -> None:
    batch = make_episodes()
    short = cured("rates", inner_steps=2, eval_inner_steps=4)
    long = cured("rates", inner_steps=4)
    assert short.rates is not None
    assert long.rates is not None
    with torch.no_grad():
        long.rates.copy_(short.rates[[0, 1, 1, 1]])
    torch.testing.assert_close(short.eval()(batch)[1], long(batch)[1].detach())


@pytest.mark.parametrize("name", ["maml", "anil"])
def test_a_zero_head_stays_and_no_row_belongs_to_a_class(name: str) -> None:
    """Rows that are alike make a permutation of the ways a permutation of the logits, exactly."""
    batch = make_episodes()
    learner = make_learner(name, make_encoder("support"), WAY, inner_lr=0.2, inner_steps=3, head="zero").double()
    outer_gradient(learner, batch)
    assert all(p.grad is None and not p.any() for p in learner.head.parameters())
    order = torch.tensor([2, 0, 1])
    logits = learner(batch)[1].detach().view(TASKS, WAY, -1, WAY)
    moved = learner.predict(learner.adapt(batch.support[:, order]), batch.query[:, order]).view(TASKS, WAY, -1, WAY)
    torch.testing.assert_close(moved, logits[:, order][..., order], rtol=1e-9, atol=1e-10)


def test_a_rate_of_the_head_for_each_way_is_so_many_times_it() -> None:
    batch = make_episodes()
    per_way = make_maml("support", inner_lr=0.1, head_lr=0.1 / WAY, inner_steps=2)
    plain = make_maml("support", inner_lr=0.1, inner_steps=2)
    torch.testing.assert_close(per_way(batch)[1], plain(batch)[1])


@pytest.mark.parametrize("name", ["maml", "maml vmapped", "anil"])
def test_a_zero_head_answers_any_number_of_ways(name: str) -> None:
    """As one that was made for as many."""
    batch = make_episodes()
    name, _, vmapped = name.partition(" ")
    options = {"inner_lr": 0.1, "inner_steps": 2, "head": "zero", **({"batching": "vmap"} if vmapped else {})}
    wide, same = (make_learner(name, make_encoder("support"), way, **options).double() for way in (7, WAY))
    assert wide.way is None
    torch.testing.assert_close(wide(batch)[1], same(batch)[1])
    gradients = outer_gradient(wide, batch), outer_gradient(same, batch)
    assert difference(*gradients) < 1e-11


def test_one_step_from_zero_on_features_of_length_one_ranks_by_cosine_of_centred_means() -> None:
    """The ways' logits are alpha / N (the way's mean - the mean of all) . q; a bias stays at zero."""
    batch = make_episodes()
    options = {"inner_lr": 0.1, "inner_steps": 1, "head": "zero", "normalise": 1.0}
    learner = make_learner("maml", make_encoder("group"), WAY, **options).double()
    with torch.no_grad():
        support = F.normalize(learner.encoder(batch.support.flatten(0, 2)), dim=-1).view(TASKS, WAY, SHOT, -1)
        query = F.normalize(learner.encoder(batch.query.flatten(0, 2)), dim=-1).view(TASKS, -1, support.shape[-1])
        means = support.mean(2)
        expected = 0.1 / WAY * query @ (means - means.mean(1, keepdim=True)).transpose(1, 2)
        torch.testing.assert_close(learner(batch)[1], expected)


@pytest.mark.parametrize("progress", [0.2, 0.6])
@pytest.mark.parametrize("norm", ["support", "transductive"])
def test_anil_with_all_cures_is_plain_autograd_on_the_head(norm: str, progress: float) -> None:
    batch = make_episodes()
    learner = ANIL(make_encoder(norm), WAY, 0.4, 3, **CURES["all"]).double()
    spread_rates(learner)
    learner.progress = progress
    rates = learner.rates
    assert rates is not None
    gradient = outer_gradient(learner, batch)
    learner.zero_grad()
    early = (1 - progress / 0.8) / 3
    labels = torch.arange(WAY).repeat_interleave(SHOT)
    total: Tensor = torch.zeros((), dtype=torch.float64)
    for support, query, asked in zip(
        batch.support.flatten(1, 2), batch.query.flatten(1, 2), batch.query_labels, strict=True
    ):
        with task_rows(learner.encoder, 1, len(support)):
            features = learner.encoder(torch.cat([support, query]))
        weight, bias = learner.head.weight * 1, learner.head.bias * 1
        for step in range(3):
            with torch.enable_grad():
                leaves = [v if v.requires_grad else v.requires_grad_() for v in (weight, bias)]
                loss = F.cross_entropy(F.linear(features[: len(support)], *leaves), labels)
            slopes = torch.autograd.grad(loss, leaves, create_graph=True)
            if progress < 0.5:
                slopes = tuple(slope.detach() for slope in slopes)
            weight, bias = weight - rates[step, 0] * slopes[0], bias - rates[step, 1] * slopes[1]
            count = early if step < 2 else 1 - 2 * early
            total = total + count * F.cross_entropy(F.linear(features[len(support) :], weight, bias), asked) / TASKS
    total.backward()
    reference = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    assert difference(gradient, reference) < 1e-11


@pytest.mark.parametrize("name", ["maml", "anil"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"second_order_from": 1.5}, "second_order_from"),
        ({"every_loss_until": -0.1}, "every_loss_until"),
        ({"inner_lr": -1.0}, "inner_lr"),
        ({"rates": "fast"}, "fixed, learnt"),
        ({"head": "random"}, "learnt, zero"),
        ({"first_order": True, "second_order_from": 0.5}, "leave one of the two out"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        make_learner(name, make_encoder("group"), WAY, **options)


@pytest.mark.parametrize("first", [True, False])
def test_a_weight_without_a_part_in_some_tasks_keeps_its_gradient_from_the_others(first: bool) -> None:
    batch = EpisodeBatch(torch.rand(3, 2, 2, 1, 4, 4), 1, torch.zeros(3, 2).long(), torch.zeros(3, 2, 2).long())
    common, seldom = (torch.ones((), requires_grad=True) for _ in range(2))
    task = 0 if first else 2

    def objective(part: EpisodeBatch) -> tuple[Tensor, Tensor]:
        value = part.images.mean()
        known = bool((part.images[0] == batch.images[task]).all())
        return common * value + (seldom * value if known else 0), torch.zeros(part.tasks, 2, 2)

    found = gradient_part(objective, [common, seldom], batch, (0, 1), 1)
    means = batch.images.flatten(1).mean(1)
    for slope, expected in zip(found.slopes, (means.mean(), means[task] / 3), strict=True):
        assert slope is not None
        torch.testing.assert_close(slope, expected)
