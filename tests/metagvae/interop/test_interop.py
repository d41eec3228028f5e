"""learn2learn: our encoders in its learners, our bank as its tasks, its tasks as our batches."""

from __future__ import annotations

import builtins
import random
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import ImageBank, InputError
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.interop import as_learn2learn_module, batches_from_taskset, taskset
from metagvae.learners import make_learner

SIZE, EACH = 16, 8


@pytest.fixture
def l2l() -> object:
    return pytest.importorskip("learn2learn", reason="learn2learn is not installed; see scripts/install.sh")


def make_bank() -> ImageBank:
    """Six classes, one small; a picture's first pixel says its class, the second its number."""
    generator = torch.Generator().manual_seed(0)
    classes = []
    for number in range(6):
        count = 3 if number == 4 else EACH
        base = torch.randint(0, 200, (1, 1, SIZE, SIZE), generator=generator)
        images = (base + torch.randint(0, 55, (count, 1, SIZE, SIZE), generator=generator)).to(torch.uint8)
        images[:, 0, 0, 0] = number
        images[:, 0, 0, 1] = torch.arange(count)
        classes.append((f"class {number}", images))
    return ImageBank.from_classes(classes)


def marks(images: Tensor) -> tuple[Tensor, Tensor]:
    """Class and number of pictures ``[..., 1, H, W]``."""
    pixels = (images[..., 0, 0, :2] * 255).round().long()
    return pixels[..., 0], pixels[..., 1]


def make_encoder(norm: str = "support", features: str = "latent") -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderConfig(width=4, size=SIZE, latent=6, norm=norm, features=[features]))


def test_importing_metagvae_leaves_learn2learn_alone() -> None:
    code = (
        "import sys, metagvae, metagvae.interop, metagvae.learners, metagvae.encoders.encoder; "
        "assert not any(name.split('.')[0] == 'learn2learn' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_error_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **named: object) -> object:
        if name == "learn2learn":
            raise ImportError("No module named 'learn2learn'")
        return real(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"scripts/install\.sh") as caught:
        taskset(make_bank(), 3, 1, 2)
    build = '--no-deps --config-settings="--build-option=build_ext" learn2learn==0.2.0'
    for part in ("pip>=24", "requests", "dill", "gym", build):
        assert part in str(caught.value)


@pytest.mark.parametrize("features", ["latent", "backbone"])
def test_encoder_learns_inside_learn2learn(l2l: object, features: str) -> None:
    encoder = make_encoder(features=features)
    module = as_learn2learn_module(encoder, way=3)
    maml = l2l.algorithms.MAML(module, lr=0.1)  # type: ignore[attr-defined]
    optimizer = torch.optim.Adam(maml.parameters(), 1e-2)
    tasks = taskset(make_bank(), 3, 2, 3, num_tasks=4)
    first = next(encoder.parameters())
    before = first.detach().clone()
    losses = []
    for _ in range(8):
        total = torch.zeros(())
        for batch in batches_from_taskset(tasks, shot=2, tasks=1):
            support, query = batch.support[0].flatten(0, 1), batch.query[0].flatten(0, 1)
            learner = maml.clone()
            learner.adapt(F.cross_entropy(learner(support), torch.arange(3).repeat_interleave(2)))
            total = total + F.cross_entropy(learner(query, support=support), batch.query_labels[0])
        optimizer.zero_grad()
        total.backward()
        assert all(parameter.grad is not None for parameter in maml.parameters())
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < losses[0]
    # its outer loop trained our encoder, which is whole
    assert not torch.equal(before, first)
    assert encoder.posterior(torch.rand(2, 1, SIZE, SIZE)).log_var.shape == (2, 6)


def test_module_needs_a_feature_size_and_ways() -> None:
    with pytest.raises(InputError, match="feature_size"):
        as_learn2learn_module(torch.nn.Linear(2, 2), 3)
    with pytest.raises(InputError, match="way"):
        as_learn2learn_module(make_encoder(), 1)


def test_bank_as_learn2learn_tasks(l2l: object) -> None:
    random.seed(0)
    tasks = taskset(make_bank(), way=3, shot=2, query=3, num_tasks=20)
    assert isinstance(tasks, l2l.data.Taskset)  # type: ignore[attr-defined]
    assert len(tasks) == 20
    orders = set()
    for images, labels in tasks:
        assert images.shape == (15, 1, SIZE, SIZE)
        assert images.dtype == torch.float32
        classes, numbers = marks(images)
        assert sorted(labels.unique().tolist()) == [0, 1, 2]
        assert 4 not in classes  # too few pictures
        by_label = {int(label): classes[labels == label].unique() for label in range(3)}
        assert all(len(found) == 1 for found in by_label.values())
        assert all(len(numbers[labels == label].unique()) == 5 for label in range(3))
        orders.add(tuple(int(by_label[label]) for label in range(3)))
    assert len(orders) > 10
    # a numbered task is the same again
    assert torch.equal(tasks[3][0].sum((1, 2, 3)).sort()[0], tasks[3][0].sum((1, 2, 3)).sort()[0])


def test_taskset_refuses_what_the_bank_lacks() -> None:
    with pytest.raises(InputError, match="5 such"):
        taskset(make_bank(), way=6, shot=2, query=3)
    with pytest.raises(InputError, match="num_tasks"):
        taskset(make_bank(), way=3, shot=2, query=3, num_tasks=0)


def test_learn2learn_tasks_as_batches(l2l: object) -> None:
    random.seed(0)
    tasks = taskset(make_bank(), way=3, shot=1, query=4, num_tasks=5)
    batches = list(batches_from_taskset(tasks, shot=1, tasks=2))
    assert [batch.tasks for batch in batches] == [2, 2, 1]
    for number, batch in enumerate(batches):
        assert batch.support.shape[1:] == (3, 1, 1, SIZE, SIZE)
        assert batch.query.shape[1:] == (3, 4, 1, SIZE, SIZE)
        classes, pictures = marks(batch.images)
        for task in range(batch.tasks):
            assert all(len(row.unique()) == 1 for row in classes[task])  # one class to a way
            assert len(classes[task].unique()) == 3
            assert all(len(row.unique()) == 5 for row in pictures[task])
            images, labels = tasks[2 * number + task]
            assert torch.equal(batch.images[task], images[batch.indices[task]])
            assert torch.equal(labels[batch.indices[task]][:, 0], batch.classes[task])
    endless = batches_from_taskset(taskset(make_bank(), 3, 1, 4), shot=1, tasks=2)
    assert [next(endless).tasks for _ in range(4)] == [2] * 4


@pytest.mark.parametrize("name", ["prototypes", "maml"])
def test_our_learners_train_on_learn2learn_tasks(l2l: object, name: str) -> None:
    random.seed(0)
    torch.manual_seed(0)
    learner = make_learner(name, make_encoder(), 3)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    tasks = taskset(make_bank(), 3, 1, 4, num_tasks=4)
    losses = []
    for _ in range(6):
        for batch in batches_from_taskset(tasks, shot=1, tasks=4):
            loss, logits = learner(batch)
            assert logits.shape == (4, 12, 3)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_split_does_not_depend_on_the_order_of_a_task() -> None:
    """Class by class or mixed, each class gets its shots; learn2learn's examples' even rows do not."""
    labels = torch.arange(3).repeat_interleave(16)  # 1 shot, 15 queries, as ConsecutiveLabels leaves them
    images = torch.linspace(0, 1, 48).view(48, 1, 1, 1).expand(48, 1, 4, 4)
    assert set(labels[torch.arange(1 * 3) * 2].tolist()) == {0}
    for order in (torch.arange(48), torch.randperm(48)):
        (batch,) = batches_from_taskset([(images[order], labels[order])], shot=1, tasks=1)
        assert batch.support.shape == (1, 3, 1, 1, 4, 4)
        drawn = (batch.images[0, :, :, 0, 0, 0] * 47).round().long()
        assert torch.equal(labels[drawn], torch.arange(3)[:, None].expand(3, 16))
        assert sorted(drawn.flatten().tolist()) == list(range(48))


def test_batches_refuse_tasks_that_do_not_split() -> None:
    images = torch.rand(6, 1, 4, 4)
    even, uneven = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 0, 0, 1, 1])
    with pytest.raises(InputError, match="shot"):
        batches_from_taskset([], shot=0, tasks=1)
    with pytest.raises(InputError, match=r"\{0: 4, 1: 2\}"):
        list(batches_from_taskset([(images, uneven)], shot=1, tasks=1))
    with pytest.raises(InputError, match="queries"):
        list(batches_from_taskset([(images, even)], shot=3, tasks=1))
    smaller = [0, 1, 3, 4]
    with pytest.raises(InputError, match="one shape"):
        list(batches_from_taskset([(images, even), (images[smaller], even[smaller])], shot=1, tasks=2))
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        list(batches_from_taskset([(images * 255, even)], shot=1, tasks=1))
    with pytest.raises(InputError, match=r"labels \[M\]"):
        list(batches_from_taskset([(images, even[:5])], shot=1, tasks=1))
    (batch,) = batches_from_taskset([((images * 255).to(torch.uint8), even)], shot=1, tasks=1)
    assert batch.images.max() <= 1
