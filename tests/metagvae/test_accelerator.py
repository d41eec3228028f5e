"""The path to an accelerator, shown on a machine without one: torch's fake CUDA tensors tell two devices apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from episodes import EpisodeBatch, EpisodeLoader, EpisodeSampler, ImageBank
from episodes.devices import exact
from metagvae.compute import device as device_module
from metagvae.compute.device import Device
from metagvae.compute.processes import Ranks

NAMES = ("auto", "cuda", "cuda:0", "cuda:1")


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch, current: int = 0) -> Iterator[None]:
    """Within it, a process that sees two GPUs and has taken number ``current``; no tensor holds any numbers.

    Reading a number back is an error there, and so is an operation on tensors of two devices.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        monkeypatch.setattr(FakeTensorMode, "avoid_device_init", True)  # the mode itself is not to take them for real
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        FakeTensorMode.cache_clear()  # which GPU is the present one is no part of its keys
        yield
        FakeTensorMode.cache_clear()


def moved(sampler: EpisodeSampler, device: torch.device) -> EpisodeSampler:
    """A sampler that was built on the CPU, where the sizes of classes can be read."""
    sampler.spans, sampler._key = sampler.spans.to(device), sampler._key.to(device)
    return sampler


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_gathered_where_the_bank_lies_whatever_the_device_is_called(
    name: str, bank: ImageBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = EpisodeSampler(bank, 3, 1, 2)
    with fake_cuda(monkeypatch):
        device = Device.choose(name, "float32")
        assert device.device == exact(name if name != "auto" else "cuda")
        there = bank.to(device.device)
        loader = EpisodeLoader(there, moved(sampler, device.device), 2, device.device)
        batch = loader[0]
    assert loader._pool is None  # nothing crosses
    assert {x.device for x in (batch.images, batch.classes, batch.indices)} == {there.device}


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_loader_and_a_batch_take_a_device_by_any_name(
    name: str, bank: ImageBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = EpisodeSampler(bank, 3, 1, 2)
    with fake_cuda(monkeypatch):
        there = bank.to("cuda")
        for given in (name, torch.device(name)):
            batch = EpisodeLoader(there, moved(sampler, torch.device("cuda")), 2, given)[0]
            assert isinstance(batch, EpisodeBatch)
            assert batch.to(given) is batch


@pytest.mark.parametrize("local", [0, 1])
def test_each_of_several_ranks_has_its_own_gpu(local: int, bank: ImageBank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(local))
    ranks = Ranks(local, 2)
    monkeypatch.setattr(ranks, "from_main", lambda content: content)
    monkeypatch.setattr(device_module, "ranks", lambda: ranks)
    sampler = EpisodeSampler(bank, 3, 1, 2)
    with fake_cuda(monkeypatch, current=local):
        device = Device.choose("auto", "float32").device
        loader = EpisodeLoader(bank.to(device), moved(sampler, device), 2, device)
        assert loader[0].images.device == device == torch.device("cuda", local)
    assert loader._pool is None
