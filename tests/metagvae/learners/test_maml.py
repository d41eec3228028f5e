"""MAML and ANIL in float64: vmap, the loop over tasks, finite differences and learn2learn agree."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import EpisodeBatch, InputError
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.encoders.norm import task_rows
from metagvae.interop import as_learn2learn_module
from metagvae.learners import FeatureLearner, make_learner
from metagvae.learners.anil import ANIL
from metagvae.learners.base import episode_loss
from metagvae.learners.maml import MAML, MAMLState
from tests.support.inner_loops import (
    QUERY,
    SHOT,
    SIZE,
    TASKS,
    WAY,
    difference,
    directional,
    make_encoder,
    make_episodes,
    make_maml,
    outer_gradient,
)

PER_TASK = ["support", "group", "transductive"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks run faster on one thread than on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("norm", [*PER_TASK, "running"])
def test_vmap_is_the_loop(norm: str, first_order: bool, steps: int) -> None:
    batch = make_episodes()
    loop = make_maml(norm, inner_steps=steps, first_order=first_order, batching="loop")
    vmapped = make_maml(norm, inner_steps=steps, first_order=first_order, batching="vmap")
    torch.testing.assert_close(loop(batch)[1], vmapped(batch)[1], rtol=1e-10, atol=1e-12)
    assert difference(outer_gradient(loop, batch), outer_gradient(vmapped, batch)) < 1e-11


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 2},
        {"chunk": 2, "threads": 1},
        {"threads": 5, "chunk": 3},
        {"recompute": True, "threads": 1},
        {"recompute": True, "threads": 2},
    ],
)
@pytest.mark.parametrize("norm", ["support", "transductive"])
def test_threads_chunks_and_recomputing_change_no_gradient(norm: str, options: dict[str, int]) -> None:
    """Against the gradient of the tasks' mean loss, all graphs kept."""
    learner = make_maml(norm, inner_steps=2)
    two = make_episodes()
    batch = EpisodeBatch(
        torch.cat([two.images, two.images.flip(1), two.images[:1] ** 2]), SHOT, two.classes, two.indices
    )
    threads = torch.get_num_threads()
    loss = episode_loss(learner.predict(learner.adapt(batch.support), batch.query), batch.query_labels)
    whole = torch.autograd.grad(loss, list(learner.parameters()), allow_unused=True)
    for name, value in options.items():
        setattr(learner, name, value)
    learner.zero_grad()
    said, logits = learner(batch)
    (2 * said).backward()
    torch.testing.assert_close(said.detach().double(), loss.detach())
    assert logits.shape == (5, batch.way * batch.queries, batch.way)
    for weight, slope in zip(learner.parameters(), whole, strict=True):
        assert (weight.grad is None) == (slope is None)
        if slope is not None:
            torch.testing.assert_close(weight.grad, 2 * slope, rtol=1e-9, atol=1e-11)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("batching", ["loop", "vmap"])
@pytest.mark.parametrize("norm", [*PER_TASK, "running"])
def test_second_order_gradient_is_that_of_finite_differences(norm: str, batching: str, steps: int) -> None:
    batch = make_episodes()
    learner = make_maml(norm, inner_steps=steps, batching=batching)
    gradient = outer_gradient(learner, batch)
    for seed in range(2):
        measured, said = directional(learner, lambda: learner(batch)[0], gradient, seed)
        assert measured == pytest.approx(said, rel=2e-6)


@pytest.mark.parametrize("norm", PER_TASK)
def test_first_order_gradient_holds_the_inner_steps_still(norm: str) -> None:
    """FOMAML's gradient is that of the queries' loss at theta + delta, delta being a constant."""
    batch = make_episodes()
    learner = make_maml(norm, inner_steps=3, first_order=True, batching="loop")
    gradient = outer_gradient(learner, batch)
    state = learner.adapt(batch.support)
    assert isinstance(state.fast, list)
    start = {name: p.detach().clone() for name, p in learner.named_parameters()}
    deltas = [{name: value.detach() - start[name] for name, value in fast.items()} for fast in state.fast]

    def loss() -> Tensor:
        now = dict(learner.named_parameters())
        fast = [{name: now[name] + value for name, value in delta.items()} for delta in deltas]
        logits = learner.predict(MAMLState(fast, state.support), batch.query)
        return F.cross_entropy(logits.flatten(0, 1), batch.query_labels.flatten())

    measured, said = directional(learner, loss, gradient, 0)
    assert measured == pytest.approx(said, rel=2e-6)
    exact = outer_gradient(make_maml(norm, inner_steps=3), batch)
    assert difference(exact, gradient) > 1e-2


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("norm", [*PER_TASK, "running"])
def test_learn2learn_agrees(norm: str, first_order: bool, steps: int) -> None:
    l2l = pytest.importorskip("learn2learn", reason="learn2learn is not installed; see scripts/install.sh")
    batch = make_episodes()
    ours = make_maml(norm, inner_steps=steps, first_order=first_order)
    gradient = outer_gradient(ours, batch)

    module = as_learn2learn_module(make_encoder(norm), WAY).double()
    module.head.load_state_dict(ours.head.state_dict())
    theirs = l2l.algorithms.MAML(module, lr=0.4, first_order=first_order)
    labels = torch.arange(WAY).repeat_interleave(SHOT)
    losses = []
    for task in range(TASKS):
        support, query = batch.support[task].flatten(0, 1), batch.query[task].flatten(0, 1)
        learner = theirs.clone()
        for _ in range(steps):
            learner.adapt(F.cross_entropy(learner(support), labels))
        losses.append(F.cross_entropy(learner(query, support=support), batch.query_labels[task]))
    torch.stack(losses).mean().backward()
    reference = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert difference(gradient, reference) < 1e-11


class TorchBatchNormEncoder(nn.Module):
    """Two blocks with torch's own batch norm, which gives wrong second derivatives under vmap."""

    feature_size = 4 * 16

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(i, 4, 3, padding=1, bias=False) for i in (1, 4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4, track_running_stats=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(F.max_pool2d(norm(conv(x)), 2))
        return x.flatten(1)


def test_batch_norm_never_runs_under_vmap() -> None:
    with pytest.raises(InputError, match="vmap"):
        MAML(TorchBatchNormEncoder(), WAY, batching="vmap")
    learner = MAML(TorchBatchNormEncoder(), WAY)
    assert learner.batching == "loop"
    learner(make_episodes(torch.float32))[0].backward()


def test_our_norm_under_vmap_is_torch_batch_norm_in_a_loop() -> None:
    """The trap: the same network with ``nn.BatchNorm2d`` has its meta-gradient right in a loop only."""
    from metagvae.encoders.norm import Norm2d

    class OurNormEncoder(TorchBatchNormEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(Norm2d(4, "transductive") for _ in range(2))

    batch = make_episodes()
    torch.manual_seed(0)
    looped = MAML(TorchBatchNormEncoder(), WAY, inner_steps=2).double()
    vmapped = MAML(OurNormEncoder(), WAY, inner_steps=2, batching="vmap").double()
    with torch.no_grad():
        for parameter in looped.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    vmapped.load_state_dict(looped.state_dict())
    assert difference(outer_gradient(looped, batch), outer_gradient(vmapped, batch)) < 1e-11


@pytest.mark.parametrize("name", ["maml", "anil"])
@pytest.mark.parametrize("first_order", [False, True])
def test_works_without_gradients(name: str, first_order: bool) -> None:
    batch = make_episodes()
    for batching in ("loop", "vmap") if name == "maml" else (None,):
        extra = {"batching": batching} if batching else {}
        learner = make_learner(name, make_encoder("support"), WAY, first_order=first_order, **extra)
        learner = learner.double().eval()
        expected = learner(batch)[1]
        with torch.no_grad():
            loss, logits = learner(batch)
        assert logits.grad_fn is None
        assert not loss.requires_grad
        assert logits.shape == (TASKS, WAY * QUERY, WAY)
        torch.testing.assert_close(logits, expected)
        before = learner.predict(learner.adapt(batch.support), batch.query)
        torch.testing.assert_close(before, expected)


@pytest.mark.parametrize("name", ["maml", "anil"])
def test_evaluation_has_its_own_number_of_steps(name: str) -> None:
    batch = make_episodes()
    encoder = make_encoder("group")
    learner = make_learner(name, encoder, WAY, inner_steps=1, eval_inner_steps=4).double()
    longer = make_learner(name, encoder, WAY, inner_steps=4).double()
    longer.load_state_dict(learner.state_dict())
    assert not torch.allclose(learner(batch)[1], longer(batch)[1])
    torch.testing.assert_close(learner.eval()(batch)[1], longer.eval()(batch)[1])


def test_first_order_keeps_no_graph_of_the_inner_loop() -> None:
    learner = make_maml("support", inner_steps=2, first_order=True)
    state = learner.adapt(make_episodes().support)
    assert isinstance(state.fast, list)
    node, operations = state.fast[0]["head.weight"].grad_fn, set()
    while node is not None:
        operations.add(type(node).__name__)
        node = node.next_functions[0][0] if node.next_functions else None
    assert operations == {"SubBackward0", "AccumulateGrad"}


@pytest.mark.parametrize("norm", [*PER_TASK, "running"])
def test_a_query_does_not_see_the_others_unless_transductive(norm: str) -> None:
    batch = make_episodes()
    learner = make_maml(norm).eval()
    state = learner.adapt(batch.support)
    changed = batch.query.clone()
    changed[:, 1:] = changed[:, 1:].flip(-1).square()
    before, after = (learner.predict(state, query)[:, :QUERY] for query in (batch.query, changed))
    assert torch.allclose(before, after, rtol=1e-12, atol=1e-12) != (norm == "transductive")
    assert learner.transductive == (norm == "transductive")


def test_running_averages_stay_and_must_have_been_trained() -> None:
    batch = make_episodes()
    learner = make_maml("running").train()
    before = copy.deepcopy(dict(learner.named_buffers()))
    learner(batch)[0].backward()
    for name, buffer in learner.named_buffers():
        assert torch.equal(buffer, before[name])
    assert all(module.training for module in learner.modules())
    fresh = MAML(Encoder(EncoderConfig(width=4, size=SIZE, latent=5, norm="running")), WAY).double()
    with pytest.raises(InputError, match="pretrained"):
        fresh(batch)
    fresh.load_state_dict(learner.state_dict())
    fresh(batch)


def test_gradient_reaches_what_the_features_use() -> None:
    for features, unused in (("latent", {"to_log_var"}), ("backbone", {"to_log_var", "to_mean"})):
        for batching in ("loop", "vmap"):
            learner = MAML(make_encoder("support", features), WAY, batching=batching).double()
            reached = outer_gradient(learner, make_episodes())
            missing = {name.split(".")[1] for name, _ in learner.named_parameters() if name not in reached}
            assert missing == unused


@pytest.mark.parametrize("name", ["maml", "anil"])
def test_bfloat16_autocast_is_near_float32(name: str) -> None:
    batch = make_episodes(torch.float32)
    for batching in ("loop", "vmap") if name == "maml" else (None,):
        extra = {"batching": batching} if batching else {}
        encoder = make_encoder("support", width=16).to(torch.float32)
        learner = make_learner(name, encoder, WAY, inner_lr=0.05, inner_steps=1, **extra)
        exact = outer_gradient(learner, batch)
        learner.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = learner(batch)[0]
        loss.backward()
        rough = {n: p.grad for n, p in learner.named_parameters() if p.grad is not None}
        assert exact.keys() == rough.keys()
        first, second = (torch.cat([part[n].flatten() for n in exact]) for part in (exact, rough))
        # prototypes reach 0.99 here. Under `group` second derivatives lose far more (0.7): no promise there
        assert float(F.cosine_similarity(first, second, dim=0)) > 0.9


# ANIL


def anil_reference(learner: ANIL, batch: EpisodeBatch, first_order: bool) -> Tensor:
    """The mean query loss by a plain loop over tasks, adapting the head through autograd."""
    losses = []
    for task in range(TASKS):
        support, query = batch.support[task].flatten(0, 1), batch.query[task].flatten(0, 1)
        with task_rows(learner.encoder, 1, len(support)):
            features = learner.encoder(torch.cat([support, query]))
        labels = torch.arange(WAY).repeat_interleave(SHOT)
        weight, bias = learner.head.weight * 1, learner.head.bias * 1
        for _ in range(learner.steps):
            loss = F.cross_entropy(F.linear(features[: len(support)], weight, bias), labels)
            slopes = torch.autograd.grad(loss, [weight, bias], create_graph=True)
            if first_order:
                slopes = tuple(slope.detach() for slope in slopes)
            weight, bias = weight - learner.options.inner_lr * slopes[0], bias - learner.options.inner_lr * slopes[1]
        logits = F.linear(features[len(support) :], weight, bias)
        losses.append(F.cross_entropy(logits, batch.query_labels[task]))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("norm", PER_TASK)
def test_anil_is_the_inner_loop_on_the_head(norm: str, first_order: bool, steps: int) -> None:
    batch = make_episodes()
    learner = ANIL(make_encoder(norm), WAY, 0.4, steps, first_order=first_order).double()
    gradient = outer_gradient(learner, batch)
    learner.zero_grad()
    anil_reference(learner, batch, first_order).backward()
    reference = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    assert difference(gradient, reference) < 1e-11


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("norm", PER_TASK)
def test_anil_gradient_is_that_of_finite_differences(norm: str, steps: int) -> None:
    batch = make_episodes()
    learner = ANIL(make_encoder(norm), WAY, 0.4, steps).double()
    gradient = outer_gradient(learner, batch)
    measured, said = directional(learner, lambda: learner(batch)[0], gradient, 0)
    assert measured == pytest.approx(said, rel=2e-6)


@pytest.mark.parametrize("first_order", [False, True])
def test_learn2learn_agrees_on_anil(first_order: bool) -> None:
    l2l = pytest.importorskip("learn2learn", reason="learn2learn is not installed; see scripts/install.sh")
    batch = make_episodes()
    learner = ANIL(make_encoder("support"), WAY, 0.4, 3, first_order=first_order).double()
    gradient = outer_gradient(learner, batch)
    learner.zero_grad()
    head = l2l.algorithms.MAML(learner.head, lr=0.4)
    losses = []
    for task in range(TASKS):
        rows = torch.cat([batch.support[task].flatten(0, 1), batch.query[task].flatten(0, 1)])
        lead = WAY * SHOT
        with task_rows(learner.encoder, 1, lead):
            features = learner.encoder(rows)
        # learn2learn's first order keeps the path through features that were embedded outside of it
        support = features[:lead].detach() if first_order else features[:lead]
        clone = head.clone(first_order=first_order)
        for _ in range(3):
            clone.adapt(F.cross_entropy(clone(support), torch.arange(WAY).repeat_interleave(SHOT)))
        losses.append(F.cross_entropy(clone(features[lead:]), batch.query_labels[task]))
    torch.stack(losses).mean().backward()
    reference = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    assert difference(gradient, reference) < 1e-11


class Pixels(nn.Module):
    """No weights: what adapts is the head."""

    feature_size = SIZE * SIZE

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


@pytest.mark.parametrize("normalise", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("batching", ["loop", "vmap"])
def test_maml_on_an_encoder_without_weights_is_anil(batching: str, normalise: float) -> None:
    batch = make_episodes()
    maml = MAML(Pixels(), WAY, 0.1, 3, batching=batching, normalise=normalise).double()
    anil = ANIL(Pixels(), WAY, 0.1, 3, normalise=normalise).double()
    anil.load_state_dict(maml.state_dict())
    torch.testing.assert_close(maml(batch)[1], anil(batch)[1])
    assert difference(outer_gradient(maml, batch), outer_gradient(anil, batch)) < 1e-11


def test_anil_head_works_on_features_alone() -> None:
    batch = make_episodes()
    learner = ANIL(make_encoder("running"), WAY).double().eval()
    assert isinstance(learner, FeatureLearner)
    assert learner.embeds_independently
    expected = learner(batch)[1]
    with torch.no_grad():
        features = learner.encoder(batch.images.flatten(0, 2)).view(*batch.images.shape[:3], -1)
        logits = learner.ask_head(learner.fit_head(features[:, :, :SHOT]), features[:, :, SHOT:])
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("name", ["maml", "anil"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"inner_lr": 0.0}, "inner_lr"),
        ({"inner_steps": 0}, "inner_steps"),
        ({"eval_inner_steps": 0}, "eval_inner_steps"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, float], named: str) -> None:
    with pytest.raises(InputError, match=named):
        make_learner(name, make_encoder("group"), WAY, **options)


@pytest.mark.parametrize("name", ["maml", "anil"])
def test_other_inputs_that_cannot_be_used(name: str) -> None:
    with pytest.raises(InputError, match="feature_size"):
        make_learner(name, nn.Flatten(), WAY)
    with pytest.raises(InputError, match="way"):
        make_learner(name, make_encoder("group"), 1)
    with pytest.raises(InputError, match="head of 4 ways"):
        make_learner(name, make_encoder("group"), 4).double()(make_episodes())
    with pytest.raises(InputError, match="batching"):
        make_learner("maml", make_encoder("group"), WAY, batching="pmap")
