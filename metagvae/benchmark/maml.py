"""A MAML step, 5-way 1-shot with 5 queries, second order: its time, and its peak memory in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import EpisodeBatch, Episodes, EpisodeSampler, EpisodeShape, InputError, make_batch
from metagvae.benchmark.networks import Classifier, PlainConv4, captured, conv4_encoder, optimizer_of, stepping
from metagvae.benchmark.peers import learn2learn
from metagvae.benchmark.pictures import bank_or_noise
from metagvae.benchmark.rows import Context, Row, compare
from metagvae.benchmark.timing import Way
from metagvae.compute.device import Device
from metagvae.learners import MAML

GROUP = "maml"
WAY, SHOT, QUERY = 5, 1, 5
INNER_LR = 0.4
# statistics of the pictures being embedded: what the paper's code and learn2learn's examples do
NORM = "transductive"
FRUGAL: dict[str, Any] = {"recompute": True, "threads": 1}


def our_learner(width: int, steps: int, **options: Any) -> MAML:
    """Our MAML around Conv-4."""
    torch.manual_seed(0)
    return MAML(conv4_encoder(width, NORM), WAY, inner_lr=INNER_LR, inner_steps=steps, **options)


def peer_network(learner: MAML, width: int) -> Classifier:
    """The same network for learn2learn, of torch's fused batch norm and in our order of layers: its fastest form."""
    encoder = learner.encoder
    network = Classifier(PlainConv4(width, running=False, pool_first=True).copy_from(encoder), width, WAY)  # type: ignore[arg-type]
    network.head.load_state_dict(learner.head.state_dict())
    return network


def our_step(learner: MAML, batch: EpisodeBatch, device: Device) -> Callable[[], None]:
    """One optimiser step over the batch's tasks."""
    return captured(stepping(learner, lambda: learner(batch)[0]), device)


def peer_gradients(algorithm: nn.Module, batch: EpisodeBatch, steps: int) -> Tensor:
    """learn2learn's loop over tasks, as its examples have it: leaves the gradients, returns the mean loss."""
    ways = torch.arange(batch.way, device=batch.images.device)
    total = batch.images.new_zeros(())
    for support, query in zip(batch.support, batch.query, strict=True):
        clone = algorithm.clone()  # type: ignore[operator]
        for _ in range(steps):
            logits = clone.head(clone.encoder(support.flatten(0, 1)))
            clone.adapt(F.cross_entropy(logits, ways.repeat_interleave(batch.shot)))
        logits = clone.head(clone.encoder(query.flatten(0, 1)))
        loss = F.cross_entropy(logits, ways.repeat_interleave(batch.queries)) / batch.tasks
        loss.backward()
        total += loss.detach()
    return total


def peer_step(network: nn.Module, batch: EpisodeBatch, steps: int) -> Callable[[], None]:
    """The same optimiser step with learn2learn's MAML."""
    algorithm = learn2learn().algorithms.MAML(network, lr=INNER_LR, first_order=False)
    optimizer = optimizer_of(algorithm)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        peer_gradients(algorithm, batch, steps)
        optimizer.step()

    return step


def make_step(side: str, context: Context, steps: int) -> Callable[[], None]:
    """The step of ``ours``, ``frugal`` (ours with the least memory) or ``peer`` on Omniglot's training characters."""
    bank = bank_or_noise(context, "omniglot", "train", 1028, 20)
    batch = make_batch(
        bank, EpisodeSampler(bank, Episodes(EpisodeShape(WAY, SHOT, QUERY))).span(0, context.sizes.tasks)
    )
    device = context.device.device
    batch = EpisodeBatch(batch.images.to(device), batch.shot, batch.classes.to(device), batch.indices.to(device))
    learner = our_learner(context.sizes.width, steps, **(FRUGAL if side == "frugal" else {}))
    if side == "peer":
        return peer_step(peer_network(learner, context.sizes.width).to(device), batch, steps)
    context.device.place(learner)
    return our_step(learner, batch, context.device)


def _ask_process(request: dict[str, object]) -> int:
    """Bytes, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "metagvae.benchmark.memory", json.dumps(request)],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"the process that measures memory failed: {(done.stderr.strip() or '?').splitlines()[-1]}.")
    return int(json.loads(done.stdout.splitlines()[-1])["bytes"])


def peak_memory(side: str, context: Context, steps: int) -> int:
    """Bytes that the step takes above what was there before it, measured in a process of its own.

    Raises:
        InputError: with its last line, if the process fails.
    """
    return _ask_process(
        {
            "side": side,
            "steps": steps,
            "device": str(context.device.device),
            "tasks": context.sizes.tasks,
            "width": context.sizes.width,
            "data": str(context.data) if context.data else None,
        }
    )


def memory_row(context: Context, steps: int, side: str) -> Row:
    """Peak memory of the step beside learn2learn's."""
    how = ", inner steps recomputed, one task at a time" if side == "frugal" else ", a task per core"
    row = Row(
        GROUP,
        f"peak memory of the step, {steps} inner steps{how}",
        "learn2learn's MAML",
        "MB",
        sense="of it",
        wanted=context.wanted(1.0, 1.0),
        note="above what the process held before the step; each in a process of its own",
    )
    try:
        learn2learn()
        ours, theirs = (peak_memory(side, context, steps) / 1e6 for side in (side, "peer"))
    except InputError as error:
        row.note = f"not measured: {error}"
        return row
    row.ours, row.theirs = ours, theirs
    row.ratio = row.low = row.high = ours / theirs
    return row


def rows(context: Context) -> list[Row]:
    """Every row on MAML."""
    # float32 for both: second derivatives of bfloat16 are not the reference's
    context = Context(**{**vars(context), "device": Device(context.device.device, autocast=False)})
    tasks = context.sizes.tasks

    def row(steps: int, side: str) -> Row:
        how = ", inner steps recomputed, one task at a time" if side == "frugal" else ""
        return compare(
            context,
            GROUP,
            f"step of {tasks} tasks, {WAY}-way {SHOT}-shot, {QUERY} queries, {steps} inner steps, second order{how}",
            "s",
            Way("ours", make_step(side, context, steps)),
            lambda: Way("learn2learn's MAML", make_step("peer", context, steps)),
            "learn2learn's MAML",
            repeats=min(context.repeats, 3),
            wanted=None if side == "frugal" else context.wanted(1.5, 15),
            note=f"Conv-4 of {context.sizes.width}, float32, norm {NORM}; same weights and tasks",
        )

    timed = [row(1, "ours"), row(5, "ours"), row(5, "frugal")]
    return [*timed, memory_row(context, 5, "ours"), memory_row(context, 5, "frugal")]
