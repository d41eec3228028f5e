"""How often a step makes the host wait for the device, in the very loops that train, pretrain and evaluate.

CUDA's own synchronisation warnings are counted over a short and a longer run of the same loop: what the longer one has
more of is the steps', and each is named by the line of this repository that asked for it.
"""

from __future__ import annotations

import itertools
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from episodes import AugmentConfig, Episodes, EpisodeShape, ImageBank
from gpu.cases import GUIDANCES, LEARNERS, WARPS, GuidanceCase, LearnerCase
from gpu.setup import REPOSITORY, Report, Setup
from metagvae.compute.device import Device
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import DataConfig, EncoderSection, LearnerSection, PretrainConfig, TrainConfig, VAESection
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import make_learner
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain
from metagvae.zoo.build import new_encoder

OWN = (REPOSITORY / "metagvae", REPOSITORY / "episodes")


def _place() -> str:
    """The innermost line of the packages that the present call comes from."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if any(folder in path.parents for folder in OWN):
            return f"{path.relative_to(REPOSITORY)}:{frame.lineno} {frame.line}"
    return "elsewhere"


def counted(work: Callable[[], object]) -> Counter[str]:
    """How often each line made the host wait."""
    places: Counter[str] = Counter()

    def note(message: Any, *_: Any, **__: Any) -> None:
        if "synchroniz" in str(message):
            places[_place()] += 1

    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
            warnings.showwarning = before
    return places


def per_step(run: Callable[[int], object], steps: tuple[int, int]) -> dict[str, Any]:
    """Waits per step of ``run(steps)``, by line."""
    short, long = (counted(lambda number=number: run(number)) for number in steps)
    more = {place: (long[place] - short[place]) / (steps[1] - steps[0]) for place in long if long[place] > short[place]}
    return {"waits per step": sum(more.values()), "places": more, "outside the steps": sum(short.values())}


def run(setup: Setup, report: Report) -> None:
    if setup.device != "cuda":
        report.row("host waits", note="not counted: CUDA alone says when the host waits")
        return
    bank, folders = setup.bank(), itertools.count()
    steps = (12, 28)  # after the warm-up of a captured graph

    def section() -> RunSection:
        return RunSection(folder=str(setup.folder / f"run-{next(folders)}"), device="cuda", log_every=1000)

    def training(case: LearnerCase, number: int) -> None:
        config = TrainConfig(
            DataConfig("omniglot"),
            AugmentConfig(**WARPS),
            EncoderSection(norm=case.norm, width=16, features=["backbone"]),
            learner=LearnerSection(case.learner, case.options),
            episodes=EpisodeSection(way=5, query=5, tasks=4),
            validation=ValidationSection(every=0),
            optim=OptimSection(steps=number, clip=10.0),
            run=section(),
        )
        train(config, bank)

    def pretraining(case: GuidanceCase, number: int) -> None:
        config = PretrainConfig(
            DataConfig("omniglot"),
            AugmentConfig(**WARPS),
            EncoderSection(width=16, latent=32),
            case.section,
            batch=32,
            views=case.views,
            optim=OptimSection(steps=number),
            run=section(),
        )
        pretrain(config, bank)

    for learner in LEARNERS:
        report.attempt(
            f"train {learner.name}",
            lambda case=learner: per_step(lambda number: training(case, number), steps),  # type: ignore[misc]
        )
    for guidance in GUIDANCES:
        report.attempt(
            f"pretrain {guidance.name}",
            lambda case=guidance: per_step(lambda number: pretraining(case, number), steps),  # type: ignore[misc]
        )
    for learner in LEARNERS:
        if learner.options.get("batching") == "loop":
            continue  # a task at a time: thousands of launches, and the same code as under vmap
        report.attempt(f"evaluate {learner.name}", lambda case=learner: evaluation(case, bank))  # type: ignore[misc]


def evaluation(case: LearnerCase, bank: ImageBank) -> dict[str, Any]:
    """Waits per thousand episodes of an evaluation."""
    section = EncoderSection(norm=case.norm, width=16, features=["backbone"])
    learner = make_learner(case.learner, new_encoder(section, VAESection(), bank, 0), 5, **case.options)

    def measured(thousands: int) -> None:
        Evaluator(bank, Episodes(EpisodeShape(5, 1, 5), stream="test"), 1000 * thousands, Device.choose("cuda")).errors(
            learner, [(5, 1)]
        )

    found = per_step(measured, (1, 3))
    return {"waits per 1,000 episodes": found["waits per step"], "places": found["places"]}
