"""A training step of a prototypical network: Conv-4, 20-way 5-shot with 15 queries."""

from __future__ import annotations

import statistics

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from episodes import EpisodeBatch, Episodes, EpisodeSampler, EpisodeShape, make_batch
from metagvae.benchmark.networks import Classifier, PlainConv4, captured, conv4_encoder, stepping
from metagvae.benchmark.peers import easyfsl
from metagvae.benchmark.pictures import bank_or_noise
from metagvae.benchmark.rows import Context, Row, compare
from metagvae.benchmark.timing import Samples, Way
from metagvae.learners import PrototypicalNetwork

GROUP = "prototypes"
WAY, SHOT, QUERY = 20, 5, 15
CLASSES = 1028  # of the supervised step's linear layer: Omniglot's training characters


def laid_out(batch: EpisodeBatch, context: Context) -> EpisodeBatch:
    """The batch as training has it: on the device, in the device's layout."""
    images = batch.images.to(context.device.device)
    flat = context.device.layout(images.flatten(0, 2)).unflatten(0, images.shape[:3])
    return EpisodeBatch(flat, batch.shot, batch.classes, batch.indices)


def ours(context: Context, batch: EpisodeBatch) -> Way:
    """Our step on a batch at hand, in the precision and layout that the device is given in training."""
    context.manual_seed()
    learner = PrototypicalNetwork(conv4_encoder(context.sizes.width, "running"))
    context.device.place(learner)
    laid = laid_out(batch, context)
    step = captured(stepping(learner, lambda: learner(laid)[0], context.device), context.device)
    return Way("ours", step, batch.images.shape[:3].numel())


def supervised(context: Context, batch: EpisodeBatch) -> Way:
    """A plain supervised step of the same backbone on the same pictures, in the same precision and layout."""
    context.manual_seed()
    encoder = conv4_encoder(context.sizes.width, "running")
    classifier = Classifier(encoder, encoder.feature_size, CLASSES)
    context.device.place(classifier)
    images = laid_out(batch, context).images.flatten(0, 2)
    labels = torch.randint(CLASSES, (len(images),), device=images.device)
    step = stepping(classifier, lambda: classifier.loss(images, labels), context.device)
    step = captured(step, context.device)
    return Way("plain supervised step", step, len(images))


def with_easyfsl(context: Context, batch: EpisodeBatch) -> Way:
    """easyfsl's prototypical network around a Conv-4 of torch's layers, float32, one episode at a time."""
    methods = easyfsl().methods
    context.manual_seed()
    network = methods.PrototypicalNetworks(PlainConv4(context.sizes.width)).to(context.device.device)
    images = batch.images[0].to(context.device.device)
    support, query = (part.flatten(0, 1).contiguous() for part in (images[:, : batch.shot], images[:, batch.shot :]))
    ways = torch.arange(batch.way, device=images.device)
    support_labels, query_labels = ways.repeat_interleave(batch.shot), ways.repeat_interleave(batch.queries)

    def loss() -> Tensor:
        network.process_support_set(support, support_labels)
        return F.cross_entropy(network(query), query_labels)

    return Way("easyfsl, float32, one episode", stepping(network, loss), batch.images.shape[1:3].numel())


def flops_per_unit(way: Way) -> float:
    """Floating-point operations of one unit of work, counted by torch."""
    with FlopCounterMode(display=False) as counter:
        way.work()
    return float(counter.get_total_flops()) / way.units


def rows(context: Context) -> list[Row]:
    """Every row on prototypical steps."""
    bank = bank_or_noise(context, "omniglot", "train", CLASSES, 20)
    sampler = EpisodeSampler(bank, Episodes(EpisodeShape(WAY, SHOT, QUERY)))
    precision = "bfloat16" if context.device.autocast else "float32"
    made = []
    for tasks in context.sizes.steps_of:
        batch = make_batch(bank, sampler.span(0, tasks))
        way = ours(context, batch)
        flops = flops_per_unit(way)

        def load(samples: Samples, flops: float = flops) -> tuple[float, str]:
            return flops / statistics.median(samples.ours), f"conv {precision}"

        name = f"step, Conv-4, {WAY}-way {SHOT}-shot, {QUERY} queries; {tasks} per step"
        note = f"{bank.dataset}, {precision}, pictures at hand"
        made.append(
            compare(
                context,
                GROUP,
                name,
                "pictures/s",
                way,
                lambda batch=batch: with_easyfsl(context, batch),  # type: ignore[misc]
                "easyfsl, float32, one episode",
                wanted=context.wanted(2.5, 8),
                load=load,
                note=note,
            )
        )
        made.append(
            compare(
                context,
                GROUP,
                name,
                "pictures/s",
                way,
                lambda batch=batch: supervised(context, batch),  # type: ignore[misc]
                "plain supervised step",
                "of it",
                wanted=context.wanted(1.1, 1.1),
                note=f"{note}, same precision and layout for both",
            )
        )
    return made
