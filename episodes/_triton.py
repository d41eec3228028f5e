"""Episodes drawn and gathered by one kernel of a GPU, by Triton where it is installed (torch for CUDA has it).

The numbers are those of `episodes.counter_rng`, bit for bit, and the pictures those of `episodes.batch.gather_batch`;
only the time differs: torch's own path takes some hundred passes over small tensors for a draw, and three rotated
copies of a batch where quarter turns are drawn. Import this module where a GPU is at hand; `METAGVAE_COMPILED=0` keeps
the loader from it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from episodes.bank import ImageBank
from episodes.batch import EpisodeBatch
from episodes.counter_rng import GOLDEN, MULTIPLY_1, MULTIPLY_2
from episodes.samplers.base import EpisodeSampler

LARGEST = 128  # ways, and pictures of a class: each is a lane of one program
TILE = 2048  # words that a program has in flight

_GOLDEN, _FIRST, _SECOND = (tl.constexpr(x & ((1 << 64) - 1)) for x in (GOLDEN, MULTIPLY_1, MULTIPLY_2))
_TURN = tl.constexpr((1 << 64) - 2)  # the counter -2 of a class's key gives its quarter turn


@triton.jit
def _fold(key, value):  # type: ignore[no-untyped-def]
    """`episodes.counter_rng.fold` on uint64."""
    x = key + (value + 1) * _GOLDEN
    x = (x ^ (x >> 30)) * _FIRST
    x = (x ^ (x >> 27)) * _SECOND
    return x ^ (x >> 31)


@triton.jit
def _at(values, lanes, lane):  # type: ignore[no-untyped-def]
    """The value of one lane."""
    return tl.sum(tl.where(lanes == lane, values, 0))


@triton.jit
def _distinct(key, limit, lanes, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """`episodes.counter_rng.distinct`: of int64 ``[lanes]`` the first ``COUNT``."""
    steps = lanes.to(tl.uint64)
    last = limit - COUNT + lanes
    bits = _fold(key, steps) >> 32
    chosen = ((bits * (last + 1).to(tl.uint64)) >> 32).to(tl.int64)
    for step in range(1, COUNT):
        draw = _at(chosen, lanes, step)
        taken = tl.sum(((chosen == draw) & (lanes < step)).to(tl.int32))
        chosen = tl.where((lanes == step) & (taken > 0), last, chosen)
    ranks = _fold(key, steps + COUNT).to(tl.int64, bitcast=True)
    placed = tl.zeros_like(chosen)
    for step in range(COUNT):
        rank = _at(ranks, lanes, step)
        earlier = (ranks < rank) | ((ranks == rank) & (lanes < step))
        before = tl.sum((earlier & (lanes < COUNT)).to(tl.int32))
        placed = tl.where(lanes == before, _at(chosen, lanes, step), placed)
    return placed


@triton.jit
def _batch(  # type: ignore[no-untyped-def]
    images,
    spans,
    key,
    numbers,
    batch,
    classes,
    indices,
    eligible,
    WAY: tl.constexpr,
    SIZE: tl.constexpr,
    WORDS: tl.constexpr,
    SIDE: tl.constexpr,
    WAYS: tl.constexpr,
    LANES: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """A class of an episode per program: its pictures' numbers, and the pictures."""
    row = tl.program_id(0).to(tl.int64)
    task, place = row // WAY, row % WAY
    base = tl.load(key).to(tl.uint64, bitcast=True)
    episode = _fold(base, tl.load(numbers + task).to(tl.uint64, bitcast=True))
    ways = tl.arange(0, WAYS).to(tl.int64)
    span = spans + 3 * _at(_distinct(_fold(episode, tl.zeros_like(base)), eligible, ways, WAY), ways, place)
    image_key = _fold(_fold(episode, tl.zeros_like(base) + 1), place.to(tl.uint64))
    lanes = tl.arange(0, LANES).to(tl.int64)
    pictures = tl.load(span) + _distinct(image_key, tl.load(span + 1), lanes, SIZE)
    tl.store(classes + row, tl.load(span + 2))
    tl.store(indices + row * SIZE + lanes, pictures, mask=lanes < SIZE)
    source = images + pictures[:, None] * WORDS
    target = batch + (row * SIZE + lanes)[:, None] * WORDS
    turn = (((_fold(image_key, tl.zeros_like(base) + _TURN) >> 32) * 4) >> 32).to(tl.int32)
    for start in range(0, WORDS, CHUNK):
        here = start + tl.arange(0, CHUNK)
        mask = (lanes < SIZE)[:, None] & (here < WORDS)[None, :]
        there = here
        if SIDE:  # words are bytes; where torch.rot90 finds what it puts at y, x
            pixel = here % (SIDE * SIDE)
            y, x = pixel // SIDE, pixel % SIDE
            far_y, far_x = SIDE - 1 - y, SIDE - 1 - x
            turned = tl.where(turn == 1, x * SIDE + far_y, pixel)
            turned = tl.where(turn == 2, far_y * SIDE + far_x, turned)
            turned = tl.where(turn == 3, far_x * SIDE + y, turned)
            there = here - pixel + turned
        tl.store(target + here[None, :], tl.load(source + there[None, :], mask=mask), mask=mask)


def fits(bank: ImageBank, sampler: EpisodeSampler) -> bool:
    """Whether the kernel makes this sampler's batches: plain episodes, of pictures in one piece of memory."""
    small = sampler.way <= LARGEST and sampler.shot + sampler.query <= LARGEST
    whole = type(bank.images) is Tensor and bank.images.is_contiguous()  # neither shards nor a tensor without memory
    square = bank.image_shape[1] == bank.image_shape[2]
    return type(sampler) is EpisodeSampler and small and whole and (square or not sampler.turns)


def draw_and_gather(bank: ImageBank, sampler: EpisodeSampler, numbers: Tensor) -> EpisodeBatch:
    """The uint8 batch of the episodes ``numbers`` (int64 ``[T]``, on the bank's device); only where it `fits`."""
    images, tasks, size = bank.images, len(numbers), sampler.shot + sampler.query
    assert isinstance(images, Tensor)
    batch = images.new_empty(tasks, sampler.way, size, *bank.image_shape)
    classes = numbers.new_empty(tasks, sampler.way)
    indices = numbers.new_empty(tasks, sampler.way, size)
    rows, copies = images.flatten(1), batch.flatten(3)
    if not sampler.turns:
        word = next(word for word in (torch.int64, torch.int32, torch.uint8) if _holds(rows, word))
        rows, copies = rows.view(word), copies.view(word)
    words, lanes = rows.shape[1], triton.next_power_of_2(size)
    _batch[(tasks * sampler.way,)](
        rows,
        sampler.spans,
        sampler._key,
        numbers.contiguous(),
        copies,
        classes,
        indices,
        len(sampler.spans),
        WAY=sampler.way,
        SIZE=size,
        WORDS=words,  # known beforehand, so that a thread may load 16 bytes at once
        SIDE=bank.image_shape[1] if sampler.turns else 0,
        WAYS=triton.next_power_of_2(sampler.way),
        LANES=lanes,
        CHUNK=min(triton.next_power_of_2(words), max(32, TILE // lanes)),
        num_warps=2,
    )
    return EpisodeBatch(batch, sampler.shot, classes, indices)


def _holds(rows: Tensor, word: torch.dtype) -> bool:
    """Whether pictures ``[M, bytes]`` are made of whole words of that kind."""
    return rows.shape[1] % word.itemsize == 0 and rows.data_ptr() % word.itemsize == 0
