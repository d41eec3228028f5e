"""Two processes against one: the same episodes, statistics, weights and errors; what happens if one goes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from episodes import AugmentConfig, Episodes, EpisodeSampler, EpisodeShape, ImageBank, InputError, warp
from episodes.batch_share import Share, holding, normal_like
from metagvae.cli import main
from metagvae.compute.batch_statistics import batch_mean, batch_rows
from metagvae.compute.device import Device
from metagvae.compute.processes import TIMEOUT, PeerLost, Ranks, ranks
from metagvae.encoders.norm import Norm2d
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import make_learner
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.signals import STOPPED
from metagvae.training import episode_terms
from tests.support.ranks import succeeded, together
from tests.support.shared_trainings import (
    STEPS,
    WORKS,
    bank,
    largest_difference,
    prototypes,
)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch):
    """Networks in float64: in float32 Adam drives two orders of summation apart, those of two threads as well."""
    lay_out = Device.layout
    monkeypatch.setattr(Device, "layout", staticmethod(lambda images: lay_out(images).double()))
    monkeypatch.setattr(Device, "place", lambda self, module: module.double())


def check_two_against_one(name: str, folder: Path, steps: int, tolerance: float) -> None:
    WORKS[name](folder / "one", steps)
    succeeded(together(lambda rank: WORKS[name](folder / "two", steps), folder))
    assert largest_difference(folder / "one", folder / "two") < tolerance
    logged = [list(read_metrics(folder / run)) for run in ("one", "two")]
    for a, b in zip(*logged, strict=True):
        assert a.keys() == b.keys()
        assert all(a[key] == pytest.approx(b[key], rel=1e-3, abs=1e-5) for key in a if key != "seconds")


@pytest.mark.parametrize("name", ["prototypes", "maml", "pretraining"])
@pytest.mark.usefixtures("double")
def test_two_processes_train_as_one(name: str, tmp_path: Path):
    check_two_against_one(name, tmp_path, STEPS, 1e-6)


@pytest.mark.parametrize("name", WORKS)
def test_two_processes_begin_as_one_in_float32(name: str, tmp_path: Path):
    check_two_against_one(name, tmp_path, 3, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prototypes", "maml", "pretraining"])
@pytest.mark.usefixtures("double")
def test_two_processes_train_as_one_for_50_steps(name: str, tmp_path: Path):
    check_two_against_one(name, tmp_path, 50, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prototypes", "maml", "pretraining"])
def test_without_kinks_two_processes_train_as_one_in_float32(name: str, tmp_path: Path, monkeypatch):
    """They drift apart over many steps by rounding that puts a number on the other side of a rectifier or maximum."""
    monkeypatch.setattr(torch.nn.functional, "relu", lambda x, inplace=False: torch.nn.functional.softplus(x, 10))
    monkeypatch.setattr(torch.nn.functional, "max_pool2d", torch.nn.functional.avg_pool2d)
    check_two_against_one(name, tmp_path, 50, 1e-5)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_shares_are_the_batch_in_order_with_the_whole_batch_s_episodes_and_draws(bank: ImageBank, size: int):
    shares = [Ranks(rank, size).share(5, "episodes.tasks") for rank in range(size)]
    assert sum(share.weight for share in shares) == pytest.approx(1)
    sampler = EpisodeSampler(bank, Episodes(EpisodeShape(3, 1, 2)))
    parts = torch.cat([sampler.span(10 + share.first, share.count).images for share in shares])
    assert torch.equal(parts, sampler.span(10, 5).images)
    pictures = torch.rand(5, 6, 3, 16, 16)
    config = AugmentConfig(30, 0.1, 0.1, 0.1, 0.1, 0.5, 0.2, 0.5, crop=0.3, colour=0.3)

    def changed(share: Share) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(3)
        own = pictures[share.rows(share.count)]
        with holding(share):
            return warp(own, config).images, normal_like(own.flatten(0, 1))

    images, noise = (torch.cat(parts) for parts in zip(*map(changed, shares), strict=True))
    whole, draws = changed(Share(0, 5, 5))
    assert torch.equal(images, whole)
    assert torch.equal(noise, draws)


def test_too_few_items_for_the_processes_are_refused():
    with pytest.raises(InputError, match=r"episodes\.tasks is 1, and 2 processes .* Set episodes\.tasks to 2 or more"):
        Ranks(0, 2).share(1, "episodes.tasks")


def test_torch_s_own_batch_norm_is_refused_in_training_alone():
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    with pytest.raises(InputError, match="BatchNorm2d, whose statistics 2 processes do not share"):
        Ranks(0, 2).check_layers(module)
    Ranks(0, 2).check_layers(module.eval())
    Ranks().check_layers(module.train())


def test_statistics_over_the_whole_batch_and_their_gradients(tmp_path: Path):
    maps = torch.randn(10, 3, 4, 4, dtype=torch.float64) * 2 + 5
    targets = torch.randn(10, 3, 4, 4, dtype=torch.float64)

    def layer() -> Norm2d:
        return Norm2d(3).double().train()

    def loss(norm: Norm2d, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        y = norm(x)
        return (y - target).square().mean() + batch_mean(y.mean((1, 2, 3)).square()) + batch_rows(y).std()

    target_known = targets.mean((1, 2, 3)) > 0
    norm, x = layer(), maps.clone().requires_grad_()
    loss(norm, x, targets).backward()

    def compare(rank: int) -> None:
        share = ranks().share(5, "items")
        mine, part = layer(), share.rows(2 * share.count)
        own = maps[part].clone().requires_grad_()
        with holding(share):
            (share.weight * loss(mine, own, targets[part])).backward()
            known = targets[part].mean((1, 2, 3)) > 0
            torch.testing.assert_close(batch_mean(own[:, 0, 0, 0], known), maps[:, 0, 0, 0][target_known].mean())
        torch.testing.assert_close(own.grad, x.grad[part])
        torch.testing.assert_close(mine.running_mean, norm.running_mean)
        torch.testing.assert_close(mine.running_var, norm.running_var)
        values = [mine.weight, mine.bias]
        ranks().reduce(values, {"term": torch.tensor(1.0)}, share)
        torch.testing.assert_close(mine.weight.grad, norm.weight.grad)
        torch.testing.assert_close(mine.bias.grad, norm.bias.grad)

    succeeded(together(compare, tmp_path))


def test_measured_errors_are_the_same_to_the_last_bit_and_in_order(tmp_path: Path):
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 6))
    learner = make_learner("prototypes", encoder, 0)
    # three chunks of episodes, the last one short, and one of pictures
    evaluator = Evaluator(bank(), Episodes(EpisodeShape(3, 1, 5), stream="test"), 2300, Device.choose("cpu"))
    alone = evaluator.errors(learner, [(2, 1), (5, 3)])

    def compare(rank: int) -> None:
        for one, two in zip(alone, evaluator.errors(learner, [(2, 1), (5, 3)]), strict=True):
            assert np.array_equal(one, two)

    succeeded(together(compare, tmp_path))


def goes_wrong_at(step: int, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The process that calls this gets a signal, or pictures that are no numbers, in a step of training, from 0."""
    lay_out, made = episode_terms._laid_out, iter(range(1000))

    def wrong(images: torch.Tensor, device: Device) -> torch.Tensor:
        if next(made) == step:
            if how == "nan":
                images = images * float("nan")
            else:
                os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGTERM)
        return lay_out(images, device)

    monkeypatch.setattr(episode_terms, "_laid_out", wrong)


def test_a_killed_process_ends_the_others_and_the_restart_ends_as_if_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def disturbed(rank: int) -> None:
        if rank == 1:
            goes_wrong_at(5, monkeypatch, "killed")
        try:
            prototypes(tmp_path / "run")
        except PeerLost as error:
            ranks().tell_lost(error)
            raise

    began = time.perf_counter()
    survivor, killed = together(disturbed, tmp_path)
    assert killed.status == -signal.SIGKILL
    assert survivor.status != 0
    assert "ended without a word" in survivor.said
    assert time.perf_counter() - began < TIMEOUT.total_seconds()  # a busy machine is slow, a hang is that long
    succeeded(together(lambda rank: prototypes(tmp_path / "run", resume="auto"), tmp_path))
    succeeded(together(lambda rank: prototypes(tmp_path / "undisturbed"), tmp_path))
    assert largest_difference(tmp_path / "run", tmp_path / "undisturbed") == 0


def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def asked(rank: int) -> None:
        if rank == 1:
            goes_wrong_at(5, monkeypatch, "asked")
        prototypes(tmp_path / "run")

    assert [launch.status for launch in together(asked, tmp_path)] == [STOPPED, STOPPED]
    assert (tmp_path / "run" / "state" / "step-0000006.pt").is_file()


def test_a_loss_that_is_not_finite_on_one_process_stops_all_with_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(rank: int) -> None:
        if rank == 1:
            goes_wrong_at(5, monkeypatch, "nan")
        try:
            prototypes(tmp_path / "run")
        except InputError as error:
            ranks().tell(str(error))
            os._exit(2)

    launches = together(broken, tmp_path)
    assert [launch.status for launch in launches] == [2, 2]
    said = "".join(launch.said for launch in launches)
    assert said.count("the loss is not finite at step 6") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--optim.steps", "many"], "optim.steps"),
        (["train", "--episodes.tasks", "1", "--run.device", "cpu"], "episodes.tasks is 1, and 2 processes"),
        (["data", "list"], "start data without torchrun"),
    ],
)
def test_an_unusable_setting_is_said_once(arguments: list[str], message: str, tmp_path: Path):
    def command(rank: int) -> None:
        os.chdir(tmp_path)
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = int(stop.code or 0)
        os._exit(status)

    launches = together(command, tmp_path)
    assert [launch.status for launch in launches] == [2, 2]
    assert "".join(launch.said for launch in launches).count(message) == 1


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "1.0"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE"),
        (
            {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "RANK": "0", "LOCAL_RANK": "q"},
            "LOCAL_RANK",
        ),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "RANK": "-1"}, "RANK"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "x", "RANK": "0"}, "MASTER_PORT"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, "RANK"),
    ],
)
def test_an_odd_environment_is_one_sentence(
    variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(variable, raising=False)
    for variable, text in variables.items():
        monkeypatch.setenv(variable, text)
    assert main(["data", "list"]) == 2
    assert f"the environment variable {named} must be a whole number" in capsys.readouterr().err


def test_an_empty_number_of_processes_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert main(["data", "list"]) == 0
    assert ranks().size == 1
