"""run.deterministic: on in the loop, off after it; an operation without such a kernel is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from episodes import InputError
from metagvae.compute.device import deterministic_algorithms
from metagvae.learners import PrototypicalNetwork
from tests.support.trainings import assert_same_run, do_train, train_config


def test_it_is_on_in_the_loop_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[bool] = set()
    forward = PrototypicalNetwork.forward

    def watched(self: PrototypicalNetwork, batch):  # type: ignore[no-untyped-def]
        seen.add(torch.are_deterministic_algorithms_enabled())
        return forward(self, batch)

    monkeypatch.setattr(PrototypicalNetwork, "forward", watched)
    do_train(train_config(tmp_path / "run", steps=3, run_deterministic=True))
    assert seen == {True}
    assert not torch.are_deterministic_algorithms_enabled()
    do_train(train_config(tmp_path / "other", steps=3))
    assert seen == {True, False}
    assert_same_run(tmp_path / "run", tmp_path / "other", "learner.safetensors")  # on a CPU it changes nothing
    with pytest.raises(InputError, match=r"run\.deterministic differ"):
        do_train(train_config(tmp_path / "run", steps=3, run_resume=True))


def test_an_operation_without_a_deterministic_kernel_is_named() -> None:
    message = "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you set"
    with pytest.raises(InputError, match=r"run\.deterministic is on, and grid_sampler"), deterministic_algorithms(True):
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="other"), deterministic_algorithms(True):
        raise RuntimeError("other")
    assert not torch.are_deterministic_algorithms_enabled()
