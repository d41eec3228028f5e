from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from episodes import Episodes, EpisodeSampler, EpisodeShape, ImageBank, InputError, make_batch
from episodes.counter_rng import below, distinct, fold, mix
from episodes.samplers import _numba as compiled

MASK = (1 << 64) - 1
KNOWN_CLASSES = [[21, 92, 2, 81, 43]]
KNOWN_IMAGES = [[[431, 428], [1843, 1854], [46, 58], [1625, 1627], [871, 872]]]


def mix_reference(x: int) -> int:
    """SplitMix64's finaliser in Python's own integers."""
    x &= MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def ragged(sizes: list[int]) -> ImageBank:
    parts = [(f"c{i}", torch.full((n, 1, 8, 8), i, dtype=torch.uint8)) for i, n in enumerate(sizes)]
    return ImageBank.from_classes(parts)


@given(st.integers(-(2**63), 2**63 - 1))
def test_mix_is_splitmix64(value: int) -> None:
    assert int(mix(torch.tensor([value]))) & MASK == mix_reference(value)


def test_mix_known_answer() -> None:
    # first output of SplitMix64 seeded with 0: the finaliser of the golden gamma
    assert int(mix(torch.tensor([0x9E3779B97F4A7C15 - (1 << 64)]))) & MASK == 0xE220A8397B1DCDAF


def test_below_stays_in_range_and_is_uniform() -> None:
    draws = below(fold(torch.tensor(5), torch.arange(70_000)), 7)
    counts = torch.bincount(draws, minlength=7)
    assert draws.min() == 0
    assert draws.max() == 6
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


@pytest.mark.parametrize(("limit", "count"), [(4, 2), (4, 4), (5, 3)])
def test_distinct_draws_every_ordered_choice_equally_often(limit: int, count: int) -> None:
    choices = list(permutations(range(limit), count))
    draws = distinct(fold(torch.tensor(1), torch.arange(400 * len(choices))), limit, count)
    found = Counter(map(tuple, draws.tolist()))
    assert set(found) == set(choices)
    assert stats.chisquare([found[c] for c in choices]).pvalue > 1e-4


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=30),
    way=st.integers(2, 6),
    shot=st.integers(1, 4),
    query=st.integers(1, 4),
    seed=st.integers(0, 2**62),
    start=st.integers(0, 10**12),
)
def test_any_episode_is_distinct_disjoint_and_exact(sizes, way, shot, query, seed, start) -> None:
    bank = ragged(sizes)
    if sum(size >= shot + query for size in sizes) < way:
        with pytest.raises(InputError, match=f"{way}-way"):
            EpisodeSampler(bank, Episodes(EpisodeShape(way, shot, query), seed=seed))
        return
    drawn = EpisodeSampler(bank, Episodes(EpisodeShape(way, shot, query), seed=seed)).span(start, 5)
    assert drawn.images.shape == (5, way, shot + query)
    for classes, images in zip(drawn.classes, drawn.images, strict=True):
        assert len(set(classes.tolist())) == way
        assert len(set(images.flatten().tolist())) == way * (shot + query)
    assert torch.equal(bank.labels[drawn.images], drawn.classes.unsqueeze(-1).expand_as(drawn.images))


def test_an_episode_does_not_depend_on_batch_order_or_neighbours() -> None:
    sampler = EpisodeSampler(ragged([9] * 50), Episodes(EpisodeShape(5, 2, 3), seed=3))
    whole = sampler.span(100, 64)
    for number in (163, 100, 131):
        alone = sampler.span(number, 1)
        assert torch.equal(alone.images[0], whole.images[number - 100])
    shuffled = sampler.draw(torch.tensor([150, 101]))
    assert torch.equal(shuffled.images[0], whole.images[50])


def test_seeds_and_streams_differ() -> None:
    bank = ragged([9] * 50)
    spans = [
        EpisodeSampler(bank, Episodes(EpisodeShape(5, 2, 3), seed=seed, stream=stream)).span(0, 20).images
        for seed in (0, 1)
        for stream in ("train", "validation", "test")
    ]
    for i, one in enumerate(spans):
        for other in spans[:i]:
            assert (one == other).float().mean() < 0.1


def test_classes_and_their_places_are_uniform() -> None:
    drawn = EpisodeSampler(ragged([4] * 10), Episodes(EpisodeShape(3, 1, 1))).span(0, 30_000)
    for place in range(3):
        counts = np.bincount(drawn.classes[:, place].numpy(), minlength=10)
        assert stats.chisquare(counts).pvalue > 1e-4
    # support and query places see every picture of a class equally often
    table = np.stack([np.bincount((drawn.images[..., place] % 4).flatten().numpy(), minlength=4) for place in (0, 1)])
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_known_episode_stays_what_it_is() -> None:
    """Benchmarks name episodes by number; changing the sampler would change them silently."""
    drawn = EpisodeSampler(ragged([20] * 100), Episodes(EpisodeShape(5, 1, 1), seed=0, stream="test")).span(0, 1)
    assert drawn.classes.tolist() == KNOWN_CLASSES
    assert drawn.images.tolist() == KNOWN_IMAGES


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize(
    ("sizes", "way", "size"), [([20] * 100, 5, 16), ([3, 9, 4, 70, 5] * 20, 20, 3), ([80] * 3, 3, 80)]
)
def test_the_compiled_draw_is_the_same(monkeypatch, sizes, way, size, turns) -> None:
    pytest.importorskip("numba")
    monkeypatch.setenv("METAGVAE_COMPILED", "1")
    compiled.kernel.cache_clear()
    sampler = EpisodeSampler(
        ragged(sizes), Episodes(EpisodeShape(way, 1, size - 1), seed=2**40 + 3, stream="test", rotations=turns)
    )
    numbers = torch.cat([torch.arange(77), torch.tensor([10**12, 5, 2**61])])
    fast = sampler.draw(numbers)
    monkeypatch.setattr(compiled, "kernel", lambda: None)
    slow = sampler.draw(numbers)
    assert torch.equal(fast.images, slow.images)
    assert torch.equal(fast.classes, slow.classes)
    assert fast.turns is None if slow.turns is None else torch.equal(fast.turns, slow.turns)


def test_cost_does_not_follow_the_number_of_classes(monkeypatch) -> None:
    """Work is counted, not timed: the draw touches no tensor as long as the classes."""
    counts = torch.full((1_000_000,), 20)
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8).expand(20_000_000, 1, 8, 8)
    bank = ImageBank.__new__(ImageBank)
    object.__setattr__(bank, "images", images)
    object.__setattr__(bank, "offsets", torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]))
    for name, value in (("split", "train"), ("dataset", "big"), ("class_names", range(1_000_000))):
        object.__setattr__(bank, name, value)
    monkeypatch.setattr(compiled, "kernel", lambda: None)  # what torch does can be watched
    sampler = EpisodeSampler(bank, Episodes(EpisodeShape(5, 1, 15)))
    sizes: list[int] = []
    with _Watch(sizes):
        sampler.span(0, 4)
    assert max(sizes) < 10_000


class _Watch(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes how many numbers every operation gives back."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.sizes = sizes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not func.is_view:
            self.sizes.append(out.numel())
        return out


@pytest.mark.parametrize(("field", "value"), [("way", 1), ("shot", 0), ("query", 0)])
def test_senseless_shapes_are_refused(field: str, value: int) -> None:
    shape = {"way": 2, "shot": 1, "query": 1, field: value}
    with pytest.raises(InputError, match=field):
        EpisodeSampler(ragged([4, 4, 4]), Episodes(EpisodeShape(**shape)))


def test_unknown_stream_is_refused() -> None:
    with pytest.raises(InputError, match="stream"):
        EpisodeSampler(ragged([4, 4]), Episodes(EpisodeShape(2, 1, 1), stream="tset"))


def test_batch_has_the_pictures_it_says() -> None:
    bank = ragged([6] * 8)
    batch = make_batch(bank, EpisodeSampler(bank, Episodes(EpisodeShape(3, 2, 3))).span(7, 4))
    assert batch.support.shape == (4, 3, 2, 1, 8, 8)
    assert batch.query.shape == (4, 3, 3, 1, 8, 8)
    assert torch.equal(batch.images[..., 0, 0, 0] * 255, batch.classes.unsqueeze(-1).expand(-1, -1, 5).float())
    assert batch.query_labels[0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_turns_turn_whole_classes() -> None:
    picture = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(4, 1, 8, 8)
    bank = ImageBank.from_classes([(str(i), picture.clone()) for i in range(6)])
    drawn = EpisodeSampler(bank, Episodes(EpisodeShape(3, 1, 2), rotations=True)).span(0, 200)
    assert drawn.turns is not None
    assert stats.chisquare(torch.bincount(drawn.turns.flatten(), minlength=4).numpy()).pvalue > 1e-4
    batch = make_batch(bank, drawn)
    for task in range(20):
        for way in range(3):
            expected = torch.rot90(picture[0].float() / 255, int(drawn.turns[task, way]), (-2, -1))
            assert torch.allclose(batch.images[task, way], expected.expand(3, -1, -1, -1))
