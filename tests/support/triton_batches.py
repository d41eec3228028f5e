"""The kernel of `episodes._triton` against torch's own draw and gather, in Triton's interpreter.

A process of its own: Triton looks at TRITON_INTERPRET when it is first imported. Prints how many batches were equal.
"""

from __future__ import annotations

import os
import random

os.environ["TRITON_INTERPRET"] = "1"
os.environ["METAGVAE_COMPILED"] = "0"  # the oracle is torch's path

import torch

from episodes import Episodes, EpisodeSampler, EpisodeShape, ImageBank, _triton
from episodes.batch import gather_batch

# what a word of the gather is: eight bytes, four, one; and sides of no power of two
SHAPES = ((1, 4, 4), (1, 6, 6), (3, 3, 3), (1, 5, 5), (3, 8, 8), (2, 28, 28))


def bank_of(sizes: list[int], shape: tuple[int, int, int], seed: int) -> ImageBank:
    generator = torch.Generator().manual_seed(seed)
    classes = [
        (str(number), torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator))
        for number, count in enumerate(sizes)
    ]
    return ImageBank.from_classes(classes)


def check(bank: ImageBank, way: int, shot: int, query: int, seed: int, turns: bool, numbers: torch.Tensor) -> None:
    sampler = EpisodeSampler(bank, Episodes(EpisodeShape(way, shot, query), seed=seed, stream="train", rotations=turns))
    assert _triton.fits(bank, sampler)
    ours = _triton.draw_and_gather(bank, sampler, numbers)
    theirs = gather_batch(bank, sampler.draw(numbers))
    for name in ("classes", "indices", "images"):
        one, other = getattr(ours, name), getattr(theirs, name)
        assert one.dtype == other.dtype, (name, one.dtype, other.dtype)
        assert torch.equal(one, other), (name, way, shot, query, seed, turns, bank.image_shape)
    assert ours.shot == theirs.shot


def main() -> None:
    chance = random.Random(0)
    done = 0
    # the ranges of test_any_episode_is_distinct_disjoint_and_exact, over shapes of pictures and quarter turns too
    for case in range(2 * len(SHAPES)):
        way, shot, query = chance.randint(2, 5), chance.randint(1, 5), chance.randint(1, 10)
        sizes = [shot + query + chance.randint(0, 5) for _ in range(way + chance.randint(0, 4))]
        sizes += [chance.randint(1, 3)] * chance.randint(0, 2)
        seed = chance.choice([0, 2**62, -(2**62), chance.randint(-(2**63), 2**63 - 1)])
        start = chance.choice([0, 2**40, chance.randint(0, 2**62)])
        bank = bank_of(sizes, SHAPES[case % len(SHAPES)], case)
        numbers = start + torch.randperm(chance.randint(1, 3))
        check(bank, way, shot, query, seed, turns=case >= len(SHAPES), numbers=numbers)
        done += 1
    for way, shot, query in ((20, 1, 5), (5, 5, 15)):  # many lanes
        bank = bank_of([shot + query + number % 2 for number in range(way + 1)], (1, 4, 4), way)
        check(bank, way, shot, query, 1, False, torch.arange(1))
        done += 1
    print(done)


if __name__ == "__main__":
    main()
