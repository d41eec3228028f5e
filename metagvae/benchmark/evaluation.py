"""Evaluating a frozen encoder: 10,000 episodes of 20-way 5-shot with 15 queries."""

from __future__ import annotations

import copy
import statistics

import torch
from torch import Tensor

from episodes import Episodes, EpisodeShape, ImageBank, to_float
from metagvae.benchmark.networks import PlainConv4, conv4_encoder
from metagvae.benchmark.peers import fused_tasks
from metagvae.benchmark.pictures import bank_or_noise, noise_bank
from metagvae.benchmark.prototypes import flops_per_unit
from metagvae.benchmark.rows import Context, Row, compare
from metagvae.benchmark.timing import Way
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.evaluation.embedding import embed_bank
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import PrototypicalNetwork

GROUP = "evaluation"
WAY, SHOT, QUERY = 20, 5, 15
PLAIN_BATCH = 128  # what a script that nobody tuned would take


def ours(context: Context, bank: ImageBank) -> Way:
    """Our evaluator, from pictures to per-episode errors."""
    context.manual_seed()
    learner = PrototypicalNetwork(conv4_encoder(context.sizes.width, "running")).eval()

    def evaluate(episodes: int) -> object:
        return Evaluator(
            bank, Episodes(EpisodeShape(WAY, SHOT, QUERY), stream="test"), episodes, context.device
        ).errors(learner, [(WAY, SHOT)])

    episodes = context.sizes.episodes
    return Way("ours", lambda: evaluate(episodes), episodes, warm=lambda: evaluate(2))


def episode_by_episode(context: Context, bank: ImageBank) -> Way:
    """A loop in learn2learn's manner: draw a task, embed all its pictures in float32, compare with prototypes."""
    context.manual_seed()
    taskset = fused_tasks(bank.to(context.device.device), WAY, SHOT + QUERY, as_float=True)
    network = PlainConv4(context.sizes.width).to(context.device.device).eval()

    @torch.no_grad()
    def episode() -> float:
        images, labels = taskset.sample()
        order = labels.argsort(stable=True).view(WAY, SHOT + QUERY)
        features = network(images)
        support, query = features[order[:, :SHOT]], features[order[:, SHOT:]].flatten(0, 1)
        nearest = torch.cdist(query, support.mean(1)).argmin(-1)
        truth = torch.arange(WAY, device=nearest.device).repeat_interleave(QUERY)
        return float((nearest != truth).float().mean())

    each = -(-context.sizes.peer_episodes // repeats_of(context))  # per sample, rounded up
    return Way("learn2learn-style loop", lambda: [episode() for _ in range(each)], each, warm=episode)


def repeats_of(context: Context) -> int:
    """Samples per way: a whole evaluation is long."""
    return min(context.repeats, 3)


def embedding_row(context: Context) -> Row:
    """Colour pictures of 84 x 84, as many as fit a second or two, through Conv-4."""
    bank = noise_bank(5, context.sizes.embedded // 5, 84, context.seed, "test", channels=3)
    context.manual_seed()
    encoder = Encoder(
        EncoderConfig("conv4", context.sizes.width, channels=3, size=84, latent=2, features=["backbone"])
    ).eval()
    plain = copy.deepcopy(encoder).to(context.device.device)
    context.device.place(encoder)

    @torch.no_grad()
    def in_batches() -> list[Tensor]:
        return [plain(to_float(part.to(context.device.device))) for part in bank.images[:].split(PLAIN_BATCH)]

    own = Way("ours", lambda: embed_bank(encoder, bank, context.device), len(bank))
    flops = flops_per_unit(own)
    precision = "bfloat16" if context.device.autocast else "float32"
    plainly = f"the same network in float32, {PLAIN_BATCH} at a time"
    return compare(
        context,
        GROUP,
        "features of colour pictures of 84 x 84, Conv-4",
        "pictures/s",
        own,
        lambda: Way(plainly, in_batches, len(bank)),
        plainly,
        load=lambda samples: (flops / statistics.median(samples.ours), f"conv {precision}"),
        note=f"{len(bank):,} pictures of noise, {precision}",
    )


def rows(context: Context) -> list[Row]:
    """Every row on evaluation: the test characters as they are, and with their turns as classes; features alone."""
    bank = bank_or_noise(context, "omniglot", "test", 423, 20)
    made = []
    for chosen, what in ((bank, "test split"), (bank.with_rotations(), "test split with turns as classes")):
        made.append(
            compare(
                context,
                GROUP,
                f"{context.sizes.episodes:,} episodes of {WAY}-way {SHOT}-shot, {QUERY} queries",
                "episodes/s",
                ours(context, chosen),
                lambda chosen=chosen: episode_by_episode(context, chosen),  # type: ignore[misc]
                "learn2learn-style loop",
                repeats=repeats_of(context),
                wanted=context.wanted(300, 300),
                note=f"{bank.dataset}, {what}: {len(chosen):,} pictures; the loop's rate is "
                f"extrapolated from {context.sizes.peer_episodes} episodes",
            )
        )
    return [*made, embedding_row(context)]
