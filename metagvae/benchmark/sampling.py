"""Episodes drawn per second: 5-way 1-shot with 15 queries, as uint8 pictures on the device that trains."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor

from episodes import EpisodeSampler, ImageBank
from metagvae.benchmark.peers import easyfsl_tasks, fused_tasks
from metagvae.benchmark.pictures import noise_bank
from metagvae.benchmark.rows import Context, Row, compare
from metagvae.benchmark.timing import Samples, Way

GROUP = "sampling"
WAY, SHOT, QUERY = 5, 1, 15
PER_CLASS = 20


def drawing(bank: ImageBank, tasks: int) -> Callable[[], Tensor]:
    """Draws the next ``tasks`` episodes at each call: uint8 ``[T, N, K + Q, C, H, W]``."""
    sampler = EpisodeSampler(bank, WAY, SHOT, QUERY)
    numbers = count(0, tasks)
    return lambda: bank.gather(sampler.span(next(numbers), tasks).images)


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
    tasks = sizes.tasks
    rows = []
    for what, ours, peer, wanted in (
        ("index draw alone", _indices(large, tasks), _indices(small, tasks), context.wanted(1.2, 1.2)),
        (
            "index draw and gather, as many pictures in both banks",
            drawing(large, tasks),
            drawing(regrouped, tasks),
            context.wanted(1.2, 1.2),
        ),
        ("index draw and gather, 16 pictures per class in both", drawing(large, tasks), drawing(small, tasks), None),
    ):
        theirs = Way(f"ours at {sizes.classes:,} classes", peer, tasks)
        rows.append(
            compare(
                context,
                GROUP,
                f"cost at {sizes.many_classes:,} classes: {what}",
                "episodes/s",
                Way("ours", ours, tasks),
                lambda theirs=theirs: theirs,  # type: ignore[misc]
                theirs.label,
                "of it",
                wanted=wanted,
                note=f"pictures of {side} x {side}, the large bank is {large.images.nbytes / 1e9:.1f} GB",
            )
        )
    return rows


def _indices(bank: ImageBank, tasks: int) -> Callable[[], object]:
    sampler = EpisodeSampler(bank, WAY, SHOT, QUERY)
    numbers = count(0, tasks)
    return lambda: sampler.span(next(numbers), tasks)


def rows(context: Context) -> list[Row]:
    """Every row on sampling."""
    bank = noise_bank(context.sizes.classes, PER_CLASS, seed=context.seed, device=context.device.device)
    tasks = context.sizes.tasks
    bytes_per_episode = WAY * (SHOT + QUERY) * bank.images[0].nbytes

    def load(samples: Samples) -> tuple[float, str]:
        # a gather reads every byte and writes it once
        return 2 * bytes_per_episode / sorted(samples.ours)[len(samples.ours) // 2], "copy"

    def against(
        name: str, tasks: int, peer: Callable[[Context, ImageBank, int], Way], label: str, wanted: float | None
    ) -> Row:
        return compare(
            context,
            GROUP,
            f"{name}, batch {tasks}",
            "episodes/s",
            Way("ours", drawing(bank, tasks), tasks),
            lambda: peer(context, bank, tasks),
            label,
            load=load,
            wanted=wanted,
            note=f"uint8 out of {len(bank):,} pictures for both",
        )

    name = f"{WAY}-way {SHOT}-shot, {QUERY} queries, 28 x 28"
    gather = "one gather by random index"
    return [
        against(name, tasks, _learn2learn, "learn2learn", context.wanted(30, 1000)),
        against(name, tasks, _easyfsl, "easyfsl", context.wanted(15, None)),
        against(
            name,
            tasks,
            lambda _, bank, tasks: Way(f"{gather}, indices at hand", gathering(bank, tasks * WAY * 16), tasks),
            gather,
            context.wanted(0.9, 0.8),
        ),
        against(name, 1, _learn2learn, "learn2learn", context.wanted(10, None)),
        *many_classes(context),
    ]
