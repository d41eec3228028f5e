"""Seconds of a training step, as captured by default and with its backbone compiled.

Steps are of prototypical networks whose every picture is support once: photographs of 84 x 84, characters of 28 x 28.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from episodes import AugmentConfig, ImageBank
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


def timed(
    setup: Setup, bank: ImageBank, sections: dict[str, Any], optim: dict[str, Any], folder: str, count: int
) -> dict[str, Any]:
    """Speed of a training in steps of ``count`` pictures, and the seconds of all of it, compiling included."""
    began = time.perf_counter()
    seconds = seconds_per_step(setup, bank, folder, optim, **sections)
    whole = time.perf_counter() - began
    return {"seconds per step": seconds, "pictures per second": round(count / seconds), "all": whole}


def run(setup: Setup, report: Report) -> None:
    banks = {
        "photographs": (noise_bank(64, setup.size(100, 20), 84, channels=3), PHOTOGRAPHS, 512),
        "characters": (noise_bank(setup.size(1000, 64), 20), CHARACTERS, 720),
    }
    ways: dict[str, dict[str, Any]] = {"captured": {}, "compiled": {"compile": True}}
    if setup.device == "cuda":
        ways["compiled"]["graph"] = "on"
    for name, (bank, sections, pictures) in banks.items():
        for way, optim in ways.items():
            work = partial(timed, setup, bank, sections, optim, f"{name}-{way}", pictures)
            report.attempt(f"{name}, {way}", work)
