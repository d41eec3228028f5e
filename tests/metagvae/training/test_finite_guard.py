"""Losses and gradients that are not finite: named, left out if allowed, and never in a state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from episodes import InputError
from metagvae.config.optimisation import OptimSection
from metagvae.config.sections import EncoderSection
from metagvae.learners import PrototypicalNetwork
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.signals import Interrupted
from metagvae.runs.states import States
from metagvae.training.finite_guard import FiniteGuard, check_finite_state
from metagvae.training.pretraining import pretrain
from metagvae.vae.guided_vae import GuidedVAE
from tests.support.trainings import assert_same_run, bank, do_train, pretrain_config, train_config

BAD = (6, 7)  # calls of forward in training, from 0


class _Exploding(torch.autograd.Function):
    """The identity, with a gradient that is not a number."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad * torch.nan


def poison(monkeypatch: pytest.MonkeyPatch, how: Callable[[Tensor], Tensor], at: tuple[int, ...] = BAD) -> dict:
    """Makes the prototypes' training loss bad at some steps; the pictures reach the running averages as NaN too."""
    calls = {"n": 0}
    forward = PrototypicalNetwork.forward

    def poisoned(self: PrototypicalNetwork, batch):  # type: ignore[no-untyped-def]
        if not self.training:
            return forward(self, batch)
        bad = calls["n"] in at
        calls["n"] += 1
        loss, logits = forward(self, batch)
        if bad:
            for name, buffer in self.named_buffers():
                if name.endswith("running_mean"):
                    buffer.data.fill_(torch.nan)  # .data: backward is not to notice
        return (how(loss) if bad else loss), logits

    monkeypatch.setattr(PrototypicalNetwork, "forward", poisoned)
    return calls


RUNNING = EncoderSection(width=8, latent=8, features=["backbone"])


def test_the_step_the_episodes_and_the_term_are_named_and_the_last_state_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda loss: loss * torch.nan)
    with pytest.raises(InputError, match=r"loss is not finite at step 7 \(episodes 12 to 13 .*seed 0\): episodes\."):
        do_train(train_config(tmp_path / "run"))
    states = States(tmp_path / "run" / "state")
    assert states.steps() == [5]
    state = states.load()
    assert state is not None
    assert all(torch.isfinite(value).all() for value in state["module"].values())


def test_a_gradient_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, _Exploding.apply)
    with pytest.raises(InputError, match="gradient is not finite at step 7"):
        do_train(train_config(tmp_path / "run"))


def test_in_pretraining_the_epoch_the_batch_and_the_term_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, calls = GuidedVAE.losses, {"n": 0}

    def poisoned(self: GuidedVAE, *arguments: object) -> dict[str, Tensor]:
        terms = losses(self, *arguments)  # type: ignore[arg-type]
        calls["n"] += 1
        return {**terms, "kl": terms["kl"] / 0.0} if calls["n"] == 9 else terms

    monkeypatch.setattr(GuidedVAE, "losses", poisoned)
    with pytest.raises(InputError, match=r"at step 9 \(epoch 1, batch 2, seed 0\): kl\."):
        pretrain(pretrain_config(tmp_path / "run"), bank())


@pytest.mark.parametrize("how", [lambda loss: loss / 0.0, _Exploding.apply], ids=["loss", "gradient"])
def test_bad_steps_are_left_out_up_to_a_bound_and_counted(
    how: Callable[[Tensor], Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def config(folder: Path, allowed: int, **run: object):  # type: ignore[no-untyped-def]
        optim = OptimSection(steps=12, skip_nonfinite=allowed)
        return train_config(folder, optim=optim, encoder=RUNNING, **run)

    calls = poison(monkeypatch, how)
    do_train(config(tmp_path / "whole", 2))
    said = capsys.readouterr().err
    assert "at step 7" in said
    assert "at step 8" in said
    assert "left out, 2 of 2 such steps allowed" in said
    counts = {line["step"]: line["skipped_steps"] for line in read_metrics(tmp_path / "whole") if "loss" in line}
    assert counts == {3: 0, 6: 0, 9: 2, 12: 2}
    # resumed between the two
    calls["n"] = 0
    with pytest.raises(Interrupted):
        do_train(config(tmp_path / "stopped", 2, run_stop_after=7))
    do_train(config(tmp_path / "stopped", 2, run_resume=True))
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", "learner.safetensors")
    # the bound holds over launches
    calls["n"] = 0
    with pytest.raises(Interrupted):
        do_train(config(tmp_path / "bounded", 1, run_stop_after=7))
    with pytest.raises(InputError, match=r"at step 8 .*allows 1 such step"):
        do_train(config(tmp_path / "bounded", 1, run_resume=True))


def small(fused: bool, allowed: int) -> tuple[nn.Module, FiniteGuard]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, fused=fused)
    return module, FiniteGuard(module, optimizer, allowed, lambda step: f"batch {step}")


def some_steps(module: nn.Module, guard: FiniteGuard, bad: tuple[int, ...], steps: int = 8) -> None:
    for step in range(steps):
        x = torch.randn(6, 3, generator=torch.Generator().manual_seed(step))
        guard.begin(step)
        guard.before()
        output = module(x * (torch.nan if step in bad else 1.0))
        module.zero_grad()
        output.square().mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        guard.step({"error": output.square().mean()}, norm)


def test_on_the_device_the_same_steps_are_left_out_and_nothing_is_read_back_before_the_check(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The way that CUDA takes, run here on the CPU's fused optimiser."""
    for allowed in (0, 2):
        module, guard = small(fused=True, allowed=allowed)
        assert guard.on_device
        some_steps(module, guard, bad=(3, 5, 6))
        assert all(torch.isfinite(p).all() for p in module.parameters())
        # the first past the bound, though others came after it
        with pytest.raises(InputError, match=rf"at step {4 if allowed == 0 else 7} \(batch .\): error"):
            guard.check()
    module, guard = small(fused=True, allowed=3)
    some_steps(module, guard, bad=(3, 5, 6))
    guard.check()
    assert "3 of 3" in capsys.readouterr().err
    slow, other = small(fused=False, allowed=3)
    some_steps(slow, other, bad=(3, 5, 6))
    for (name, a), b in zip(module.state_dict().items(), slow.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_poisoned_weights_or_buffers_are_not_written() -> None:
    module = nn.BatchNorm1d(3)
    check_finite_state(module, 4)
    module.running_var[1] = torch.inf  # type: ignore[index]
    with pytest.raises(InputError, match="running_var is not finite after step 4"):
        check_finite_state(module, 4)


def test_the_guard_changes_no_bit(tmp_path: Path) -> None:
    for allowed in (0, 5):
        optim = OptimSection(steps=12, skip_nonfinite=allowed)
        do_train(train_config(tmp_path / str(allowed), optim=optim, encoder=RUNNING))
    from metagvae.storage.tensors import read_tensors

    a, b = (read_tensors(tmp_path / str(n) / "learner.safetensors") for n in (0, 5))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_bound_below_zero_is_refused() -> None:
    with pytest.raises(InputError, match="skip_nonfinite"):
        OptimSection(skip_nonfinite=-1)
