"""Episodes drawn per second: 5-way 1-shot with 15 queries, as uint8 pictures on the device that trains."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from episodes import Episodes, EpisodeSampler, EpisodeShape, ImageBank
from episodes.loader import BLOCK, EpisodeLoader
from metagvae.benchmark.peers import easyfsl_tasks, fused_tasks
from metagvae.benchmark.pictures import noise_bank
from metagvae.benchmark.rows import Context, Row, compare
from metagvae.benchmark.timing import Samples, Way

GROUP = "sampling"
WAY, SHOT, QUERY = 5, 1, 15
PER_CLASS = 20
NAME = f"{WAY}-way {SHOT}-shot, {QUERY} queries, 28 x 28"


def drawing(bank: ImageBank, tasks: int, device: torch.device) -> Callable[[], Tensor]:
    """The loader's next step of ``tasks`` episodes at each call: uint8 ``[T, N, K + Q, C, H, W]`` on ``device``."""
    loader = EpisodeLoader(bank, EpisodeSampler(bank, Episodes(EpisodeShape(WAY, SHOT, QUERY))), tasks, device)
    steps = count()
    return lambda: loader[next(steps)].images


def gathering(bank: ImageBank, rows: int) -> Callable[[], Tensor]:
    """One gather of ``rows`` pictures at each call, by random numbers over the whole bank drawn beforehand."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(len(bank), (rows,), generator=generator).to(bank.device) for _ in range(64)]
    turns = count()
    return lambda: bank.images.index_select(0, drawn[next(turns) % len(drawn)])


def _learn2learn(context: Context, bank: ImageBank, tasks: int) -> Way:
    taskset = fused_tasks(bank, WAY, SHOT + QUERY)
    return Way("learn2learn's fused tasks, data in memory", lambda: [taskset.sample() for _ in range(tasks)], tasks)


def _easyfsl(context: Context, bank: ImageBank, tasks: int) -> Way:
    loader = easyfsl_tasks(bank, WAY, SHOT, QUERY)
    return Way("easyfsl's TaskSampler, constructor patched", lambda: [next(loader) for _ in range(tasks)], tasks)


def many_classes(context: Context) -> list[Row]:
    """What a bank of 1,000,000 classes costs more than one of 1,000."""
    sizes = context.sizes
    per_class = SHOT + QUERY
    # pictures as small as it takes for the large bank to fit beside everything else
    device = context.device.device
    side = 28 if device.type == "cuda" else 8
    large = noise_bank(sizes.many_classes, per_class, side, device=device)
    regrouped = noise_bank(sizes.classes, per_class * sizes.many_classes // sizes.classes, side, device=device)
    small = noise_bank(sizes.classes, per_class, side, device=device)
    block, tasks = BLOCK.get(device.type, 2**20) // (WAY * per_class), sizes.tasks

    def row(what: str, make: Callable[[ImageBank], Way], other: ImageBank, wanted: float | None) -> Row:
        return compare(
            context,
            GROUP,
            f"cost at {sizes.many_classes:,} classes: {what}",
            "episodes/s",
            make(large),
            lambda: make(other),
            "",
            "of it",
            wanted=wanted,
            note=f"pictures of {side} x {side}, the large bank is {large.images.nbytes / 1e9:.1f} GB",
        )

    def indices(bank: ImageBank) -> Way:
        sampler = EpisodeSampler(bank, Episodes(EpisodeShape(WAY, SHOT, QUERY)))
        blocks = count(0, block)
        return Way(f"ours at {bank.num_classes:,}", lambda: sampler.span(next(blocks), block), block)

    def whole(bank: ImageBank) -> Way:
        return Way(f"ours at {bank.num_classes:,}", drawing(bank, tasks, device), tasks)

    wanted = context.wanted(1.2, 1.2)
    return [
        row("index draw alone", indices, small, wanted),
        row("batches, as many pictures in both banks", whole, regrouped, wanted),
        row(f"batches, {per_class} pictures per class in both", whole, small, None),
    ]


def mapped_row(context: Context) -> Row:
    """Batches out of a bank mapped from a file, gathered ahead by two threads, beside the same bank in memory."""
    bank = noise_bank(max(WAY, context.sizes.many_classes // 50), SHOT + QUERY, seed=context.seed)
    tasks, device = context.sizes.tasks, context.device.device
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, bank.images[:].numpy())
        mapped = replace(bank, images=torch.from_numpy(np.load(path, mmap_mode="c")))
        sampler = EpisodeSampler(mapped, Episodes(EpisodeShape(WAY, SHOT, QUERY)))
        with EpisodeLoader(mapped, sampler, tasks, device, threads=2) as loader:
            steps = count()
            held = bank.to(device)
            return compare(
                context,
                GROUP,
                f"{NAME}, batch {tasks}, bank mapped from a file, two threads ahead",
                "episodes/s",
                Way("ours", lambda: loader[next(steps)].images, tasks),
                lambda: Way("ours, bank on the device", drawing(held, tasks, device), tasks),
                "",
                note=f"{bank.images.nbytes / 1e9:.1f} GB, in the system's page cache as just written",
            )


def rows(context: Context) -> list[Row]:
    """Every row on sampling."""
    device, tasks = context.device.device, context.sizes.tasks
    bank = noise_bank(context.sizes.drawn_classes, PER_CLASS, seed=context.seed, device=device)
    bytes_per_episode = WAY * (SHOT + QUERY) * bank.images[0].nbytes

    def load(samples: Samples) -> tuple[float, str]:
        # a gather reads every byte and writes it once
        return 2 * bytes_per_episode / statistics.median(samples.ours), "copy"

    def against(tasks: int, peer: Callable[[Context, ImageBank, int], Way], label: str, wanted: float | None) -> Row:
        return compare(
            context,
            GROUP,
            f"{NAME}, batch {tasks}",
            "episodes/s",
            Way("ours", drawing(bank, tasks, device), tasks),
            lambda: peer(context, bank, tasks),
            label,
            load=load,
            wanted=wanted,
            note=f"uint8 out of {len(bank):,} pictures for both",
        )

    gather = "one gather by random index, indices at hand"
    return [
        against(tasks, _learn2learn, "learn2learn", context.wanted(30, 1000)),
        against(tasks, _easyfsl, "easyfsl", context.wanted(15, None)),
        against(
            tasks,
            lambda _, bank, tasks: Way(gather, gathering(bank, tasks * WAY * (SHOT + QUERY)), tasks),
            gather,
            context.wanted(0.9, 0.8),
        ),
        against(1, _learn2learn, "learn2learn", context.wanted(10, None)),
        *many_classes(context),
        mapped_row(context),
    ]
