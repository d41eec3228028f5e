"""The clock, the turns, and what a row says of its samples."""

from __future__ import annotations

import mmap
import time

import pytest
import torch

from episodes import InputError
from metagvae.benchmark.memory import peak_above
from metagvae.benchmark.rows import Context, Row, compare, row_of
from metagvae.benchmark.timing import Clock, Samples, Way, alone, by_turns
from metagvae.compute.device import Device

CPU = Context(Device(torch.device("cpu"), autocast=False), repeats=3, least=0.0)


class FakeTime:
    """Work that takes as long as it says, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.order = 0.0, ""
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def work(self, name: str, seconds: float) -> None:
        self.order += name
        self.now += seconds


def test_samples_are_seconds_per_unit_taken_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTime(monkeypatch)
    ours = Way("ours", lambda: fake.work("o", 1.0), units=10)
    peer = Way("peer", lambda: fake.work("p", 4.0), units=5)
    samples = by_turns(Clock(lambda: None), ours, peer, 3, 8.0)
    assert samples == Samples((0.1,) * 3, (0.8,) * 3)
    assert samples.ratios == pytest.approx([8.0] * 3)
    assert fake.order == "oopp" + "oooooooopp" + "ppoooooooo" + "oooooooopp"


def test_a_long_call_is_a_sample_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTime(monkeypatch)
    ours = Way("ours", lambda: fake.work("o", 9.0), warm=lambda: fake.work("w", 0.0))
    peer = Way("peer", lambda: fake.work("p", 9.0), warm=lambda: fake.work("v", 0.0))
    samples = by_turns(Clock(lambda: None), ours, peer, 2, 8.0)
    assert samples == Samples((9.0, 9.0), (9.0, 9.0))
    assert fake.order == "wovpop"


def test_processor_seconds_leave_waiting_out() -> None:
    nap = Clock(lambda: None, processor=True).seconds(lambda: time.sleep(0.2))
    assert nap < 0.1
    assert Clock(lambda: None).seconds(lambda: time.sleep(0.2)) >= 0.2


def test_one_way_alone_gives_its_median(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, lengths = FakeTime(monkeypatch), iter([5.0, 1.0, 3.0, 1.0, 2.0])
    assert alone(Clock(lambda: None), Way("way", lambda: fake.work("o", next(lengths)), 2.0), 3, 0.5) == 1.0


def test_rates_and_ratios() -> None:
    samples = Samples((0.5, 0.25, 0.5), (2.0, 2.0, 3.0))
    row = row_of(samples, "g", "n", "p", "steps/s", wanted=5)
    assert (row.ours, row.theirs, row.ratio, row.low, row.high) == (2.0, 0.5, 6.0, 4.0, 8.0)
    assert row.reached
    row = row_of(samples, "g", "n", "p", "s", "of it", wanted=0.1)
    assert (row.ours, row.theirs) == (0.5, 2.0)
    assert row.ratio == pytest.approx(1 / 6)
    assert row.reached is False
    assert Row("g", "n", "p", "s", ours=0.2, sense="seconds", wanted=0.1).reached is False
    assert Row("g", "n", "p", "s", wanted=2.0).reached is None
    assert Row("g", "n", "p", "s", ours=1.0, ratio=1.0).reached is None


def test_a_peer_that_is_not_there_is_said() -> None:
    def missing() -> Way:
        raise InputError("easyfsl cannot be imported. Install it.")

    row = compare(CPU, "g", "n", "s", Way("ours", lambda: None), missing, "easyfsl", wanted=2.0)
    assert row.note == "not measured: easyfsl cannot be imported"
    assert (row.ours, row.ratio, row.reached, row.peer) == (None, None, None, "easyfsl")


def test_cuda_is_waited_for_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", seen.append)
    device = torch.device("cuda:1")
    Clock.of(device).seconds(lambda: seen.append("work"), 2)
    assert seen == [device, "work", "work", device]
    assert Context(Device(device, True)).wanted(1.0, 2.0) == 2.0
    assert CPU.wanted(1.0, 2.0) == 1.0


def test_cuda_memory_is_the_peak_above_what_was_held(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"now": 700, "peak": 9000}
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: held.update(peak=held["now"]))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: held["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: held["peak"])
    assert peak_above(lambda: held.update(now=800, peak=1900), torch.device("cuda")) == 1200


def test_cpu_memory_sees_what_was_freed_again() -> None:
    def work() -> None:
        with mmap.mmap(-1, 100 * 2**20) as fresh:  # torch would use pages that other tests have freed
            for page in range(0, len(fresh), mmap.PAGESIZE):
                fresh[page] = 1

    # at least: other tests may have left a higher peak behind
    assert peak_above(work, torch.device("cpu")) > 90 * 2**20
