"""Seconds of a training step, as captured by default and with its backbone compiled, and where a step's time goes.

Steps are of prototypical networks whose every picture is support once: photographs of 84 x 84, characters of 28 x 28.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from episodes import AugmentConfig
from gpu.setup import Report, Setup
from gpu.speed import seconds_per_step
from metagvae.benchmark.pictures import noise_bank
from metagvae.config.episodes import EpisodeSection
from metagvae.config.sections import EncoderSection, LearnerSection

PHOTOGRAPHS: dict[str, Any] = {
    "encoder": EncoderSection(features=["backbone"], mean=0.45, std=0.27),
    "episodes": EpisodeSection(64, 1, 7, 1),
    "learner": LearnerSection("prototypes", {"roles": "every", "normalise": 0.5}),
    "augment": AugmentConfig(rotation=5, scale=0.2, flip=0.5, brightness=0.3, crop=0.3, colour=0.2),
}
CHARACTERS: dict[str, Any] = {
    "encoder": EncoderSection(features=["backbone"]),
    "episodes": EpisodeSection(60, 1, 5, 2),
    "learner": LearnerSection("prototypes", {"roles": "every", "normalise": 0.5, "scale": 3.0}),
    "augment": AugmentConfig(rotation=10, scale=0.1, shear=0.1, translation=0.05),
}
KERNELS = 14


def kernels(setup: Setup, bank: Any, sections: dict[str, Any]) -> dict[str, Any]:
    """The kernels that take most of the time of a training without a captured graph, in percent."""
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        seconds_per_step(setup, bank, f"profiled-{bank.image_shape[-1]}", {"graph": "off"}, **sections)
    rows = [(row.key, row.self_device_time_total) for row in seen.key_averages() if row.self_device_time_total]
    rows = [(key, spent) for key, spent in rows if not key.startswith(("aten::", "autograd::"))]
    total = sum(spent for _, spent in rows) or 1.0
    rows.sort(key=lambda row: -row[1])
    return {key[:90]: round(100 * spent / total, 1) for key, spent in rows[:KERNELS]}


def run(setup: Setup, report: Report) -> None:
    banks = {
        "photographs": (noise_bank(64, setup.size(100, 20), 84, channels=3), PHOTOGRAPHS, 512),
        "characters": (noise_bank(setup.size(1000, 64), 20), CHARACTERS, 720),
    }
    on_gpu = setup.device == "cuda"
    ways: dict[str, dict[str, Any]] = {"captured": {}, "compiled": {"compile": True}}
    if on_gpu:
        ways["compiled"]["graph"] = "on"
    for name, (bank, sections, pictures) in banks.items():
        for way, optim in ways.items():

            def timed(bank: Any, optim: dict[str, Any], sections: dict[str, Any], folder: str, count: int) -> Any:
                began = time.perf_counter()
                seconds = seconds_per_step(setup, bank, folder, optim, **sections)
                per_second = round(count / seconds)
                return {
                    "seconds per step": seconds,
                    "pictures per second": per_second,
                    "all": time.perf_counter() - began,
                }

            report.attempt(f"{name}, {way}", partial(timed, bank, optim, sections, f"{name}-{way}", pictures))
    if on_gpu:
        torch.cuda.synchronize()
        report.attempt("kernels", partial(kernels, setup, banks["photographs"][0], PHOTOGRAPHS))
