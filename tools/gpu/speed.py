"""The benchmark's rows that ask for a GPU, and what they are made of. Nothing else should run meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints
from unittest.mock import patch

import torch

from episodes import AugmentConfig, ImageBank
from gpu.setup import Report, Setup
from metagvae.benchmark import ceilings, evaluation, maml, pretraining, prototypes, sampling
from metagvae.benchmark.pictures import noise_bank
from metagvae.benchmark.rows import Context, Row, Sizes, compare
from metagvae.benchmark.timing import Way
from metagvae.compute.device import Device
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import DataConfig, EncoderSection, LearnerSection, TrainConfig
from metagvae.training.episodic import train


def context_of(setup: Setup) -> Context:
    on_gpu = setup.device == "cuda"
    sizes = Sizes(steps_of=(1, 16) if on_gpu else (1,), ceiling=8192 if on_gpu else 1024)
    if setup.reduced:
        sizes = Sizes(200, 100, 1000, 4, (1,), 8, 100, 3, 2000, 256)
    data = Path(setup.data) if setup.data else None
    device = Device.choose(setup.device)
    return Context(device, repeats=setup.size(4, 2), least=0.01 if setup.reduced else 0.2, data=data, sizes=sizes)


def drawing_rows(context: Context) -> list[Row]:
    """Episodes per second at two batch sizes beside one gather of the same bytes."""
    device = context.device.device
    bank = noise_bank(context.sizes.drawn_classes, sampling.PER_CLASS, seed=context.seed, device=device)
    pictures = sampling.WAY * (sampling.SHOT + sampling.QUERY)

    def row(tasks: int) -> Row:
        return compare(
            context,
            "sampling",
            f"{sampling.NAME}, batch {tasks}",
            "episodes/s",
            Way("ours", sampling.drawing(bank, tasks, device), tasks),
            lambda: Way("one gather of the same bytes", sampling.gathering(bank, tasks * pictures), tasks),
            "one gather of the same bytes",
            wanted=context.wanted(0.95, 0.8),
            note=f"uint8 out of {len(bank):,} pictures for both",
        )

    def against_torch(tasks: int) -> Row:
        with patch.dict(os.environ, METAGVAE_COMPILED="0"):
            plain = sampling.drawing(bank, tasks, device)
        name = f"{sampling.NAME}, batch {tasks}, one kernel"
        ours = Way("ours", sampling.drawing(bank, tasks, device), tasks)
        torchs = Way("torch's draw and gather", plain, tasks)
        return compare(context, "sampling", name, "episodes/s", ours, lambda: torchs, torchs.label)

    sizes = (context.sizes.tasks, 32 * context.sizes.tasks)
    return [*(row(tasks) for tasks in sizes), *(against_torch(tasks) for tasks in sizes)]


def peer_rows(context: Context) -> list[Row]:
    """Episodes per second beside the other packages' ways."""
    device, tasks = context.device.device, context.sizes.tasks
    bank = noise_bank(context.sizes.drawn_classes, sampling.PER_CLASS, seed=context.seed, device=device)

    def row(peer: Callable[[Context, ImageBank, int], Way], label: str, wanted: float | None) -> Row:
        ours = Way("ours", sampling.drawing(bank, tasks, device), tasks)
        name = f"{sampling.NAME}, batch {tasks}"
        return compare(
            context, "sampling", name, "episodes/s", ours, lambda: peer(context, bank, tasks), label, wanted=wanted
        )

    return [row(sampling._learn2learn, "learn2learn", 1000), row(sampling._easyfsl, "easyfsl", None)]


def maml_row(context: Context, steps: int) -> dict[str, Any]:
    """The step beside learn2learn's, and the most memory that each takes above what it starts from."""
    context = replace(context, device=Device(context.device.device, autocast=False))
    peaks: dict[str, int] = {}

    def measured(side: str) -> Way:
        step = maml.make_step(side, context, steps)
        step()
        if context.device.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            torch.cuda.synchronize()
            peaks[side] = torch.cuda.max_memory_allocated() - before
        return Way(side, step)

    row = compare(
        context,
        "maml",
        f"step of {context.sizes.tasks} tasks, 5-way 1-shot, 5 queries, {steps} inner steps, second order",
        "s",
        measured("ours"),
        lambda: measured("peer"),
        "learn2learn's MAML",
        wanted=context.wanted(1.5, 15),
        repeats=min(context.repeats, 3),
    )
    return {"rows": [row.to_dict()], "peak bytes": peaks}


def seconds_per_step(setup: Setup, bank: ImageBank, name: str, optim: dict[str, Any], **sections: Any) -> float:
    """Of `metagvae.training.episodic.train` itself, from what it logs; the median over the later half of the lines."""
    steps, every = (4, 1) if setup.few else (setup.size(100 if "maml" in name else 300, 12), setup.size(20, 2))
    folder = setup.folder / name
    config = TrainConfig(
        DataConfig("omniglot"),
        validation=ValidationSection(every=0),
        optim=OptimSection(steps=steps, **optim),
        run=RunSection(str(folder), device=setup.device, log_every=every, save_every=10 * steps),
        **sections,
    )
    train(config, bank)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = [line["seconds"] for line in lines if "seconds" in line]
    laps = [(b - a) / every for a, b in itertools.pairwise(seconds)]
    return statistics.median(laps[len(laps) // 2 :])


TRAININGS: dict[str, dict[str, Any]] = {
    "prototypes, 60-way 1-shot, as configs/omniglot/fast.yaml": {
        "encoder": EncoderSection(features=["backbone"]),
        "episodes": EpisodeSection(60, 1, 5, 1),
    },
    "prototypes, every role, warps, as configs/omniglot/warp-protonet.yaml": {
        "encoder": EncoderSection(features=["backbone"]),
        "episodes": EpisodeSection(60, 1, 5, 1),
        "learner": LearnerSection("prototypes", {"roles": "every"}),
        "augment": AugmentConfig(rotation=10, scale=0.1, shear=0.1, translation=0.05),
    },
    "maml, 5-way 1-shot, 32 tasks": {
        "encoder": EncoderSection(norm="support", features=["backbone"]),
        "episodes": EpisodeSection(5, 1, 5, 32),
        "learner": LearnerSection("maml", {"inner_lr": 0.4}),
    },
    "maml, 20-way 1-shot, 16 tasks, 5 inner steps": {
        "encoder": EncoderSection(norm="support", features=["backbone"]),
        "episodes": EpisodeSection(20, 1, 5, 16),
        "learner": LearnerSection("maml", {"inner_lr": 0.1, "inner_steps": 5}),
    },
}


def training_rows(setup: Setup, report: Report) -> None:
    """Seconds per step of whole trainings: as `auto` has it, without captured graphs, in float32, compiled."""
    bank = setup.bank()
    ways: dict[str, dict[str, Any]] = {"auto": {}, "float32": {"precision": "float32"}}
    hints = get_type_hints(OptimSection)
    if "graph" in hints:
        ways["eager"] = {"graph": False if bool in (hints["graph"], *get_args(hints["graph"])) else "off"}
    for number, (name, sections) in enumerate(list(TRAININGS.items())[: 1 if setup.few else None]):
        for way, optim in ways.items():
            kind = sections.get("learner", LearnerSection()).name
            folder = f"steps-{number}-{kind}-{way}"
            report.attempt(
                f"step of {name}: {way}",
                lambda s=sections, o=optim, f=folder: {  # type: ignore[misc]
                    "seconds per step": seconds_per_step(setup, bank, f, o, **s)
                },
            )


def run(setup: Setup, report: Report) -> None:
    context = context_of(setup)

    def rows(name: str, make: Callable[[], list[Row]]) -> None:
        report.attempt(name, lambda: {"rows": [row.to_dict() for row in make()]})

    rows("ceilings", lambda: ceilings.rows(context))
    rows("episodes drawn", lambda: drawing_rows(context))
    rows("prototypes", lambda: prototypes.rows(context))
    for steps in (1, 5):
        report.attempt(f"maml, {steps} inner steps", lambda steps=steps: maml_row(context, steps))  # type: ignore[misc]
    rows("evaluation", lambda: evaluation.rows(context))
    training_rows(setup, report)
    rows("pretraining", lambda: pretraining.rows(context))
    rows("episodes drawn, other packages", lambda: peer_rows(context))
