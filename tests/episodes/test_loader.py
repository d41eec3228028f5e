from __future__ import annotations

import numpy as np
import pytest
import torch

from episodes import EpisodeLoader, Episodes, EpisodeSampler, EpisodeShape, ImageBank, make_batch


def numbered(classes: int = 30, size: int = 9) -> ImageBank:
    """A bank in which every picture is unlike every other."""
    images = torch.randint(0, 256, (classes * size, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    offsets = torch.arange(classes + 1) * size
    return ImageBank(images.to(torch.uint8), offsets, tuple(map(str, range(classes))))


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("turns", [False, True])
def test_any_step_is_the_batch_of_its_episodes(threads: int, turns: bool) -> None:
    bank = numbered()
    sampler = EpisodeSampler(bank, Episodes(EpisodeShape(5, 2, 3), seed=4, rotations=turns))
    with EpisodeLoader(bank, sampler, tasks=3, threads=threads) as loader:
        for step in (0, 1, 2, 3, 700, 701, 1, 10**9):
            expected = make_batch(bank, sampler.span(3 * step, 3))
            batch = loader[step]
            assert batch.images.dtype == torch.uint8
            assert torch.equal(batch.scaled().images, expected.images)
            assert torch.equal(batch.classes, expected.classes)
            assert torch.equal(batch.indices, expected.indices)


def test_ranks_name_their_own_episodes() -> None:
    bank = numbered()
    sampler = EpisodeSampler(bank, Episodes(EpisodeShape(5, 1, 2)))
    shares = [
        EpisodeLoader(bank, sampler, 2, numbers=lambda step, rank=rank: torch.arange(2) + 4 * step + 2 * rank)
        for rank in (0, 1)
    ]
    whole = EpisodeLoader(bank, sampler, 4)[7].images
    assert torch.equal(torch.cat([share[7].images for share in shares]), whole)


def test_a_bank_mapped_from_a_file_is_gathered_ahead(tmp_path) -> None:
    bank = numbered(60, 20)
    np.save(tmp_path / "images.npy", bank.images.numpy())
    mapped = ImageBank(
        torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="c")), bank.offsets, bank.class_names
    )
    sampler = EpisodeSampler(mapped, Episodes(EpisodeShape(5, 1, 15)))
    with EpisodeLoader(mapped, sampler, 4, threads=2) as loader:
        for step in range(40):
            assert torch.equal(loader[step].images, bank.gather(sampler.span(4 * step, 4).images))
