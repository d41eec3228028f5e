"""Properties of episodes, splits and banks, over shapes and numbers that Hypothesis chooses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from episodes import EpisodeIndices, Episodes, EpisodeSampler, EpisodeShape, ImageBank, make_batch
from episodes.datasets.folder import assign_classes, class_counts
from episodes.datasets.miniimagenet_split import ravi_split
from episodes.datasets.omniglot import vinyals_split

# the same cases on every machine and in every run: a test that fails now and then says nothing
fixed = settings(max_examples=60, deadline=None, derandomize=True)
STREAMS = st.sampled_from(["train", "validation", "test"])
SEEDS = st.integers(0, 2**62)
STARTS = st.integers(0, 2**40)


def bank_of(sizes: list[int]) -> ImageBank:
    """A bank whose every picture shows its own number."""
    total = sum(sizes)
    numbers = torch.arange(total)
    planes = torch.stack([(numbers >> (8 * byte)) & 255 for byte in range(3)], 1).to(torch.uint8)
    images = planes[:, :, None, None].expand(-1, -1, 2, 2).contiguous()
    return ImageBank(images, torch.tensor([0, *sizes]).cumsum(0), tuple(f"c{i}" for i in range(len(sizes))))


@st.composite
def samplers(draw: st.DrawFn) -> tuple[EpisodeSampler, ImageBank]:
    """A sampler of any shape that its bank can give, classes too small among the others."""
    way, shot, query = draw(st.integers(2, 8)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    fit = draw(st.lists(st.integers(shot + query, shot + query + 20), min_size=way, max_size=way + 20))
    small = draw(st.lists(st.integers(1, max(1, shot + query - 1)), max_size=5))
    sizes = draw(st.permutations(fit + small))
    bank = bank_of(sizes)
    return EpisodeSampler(
        bank,
        Episodes(EpisodeShape(way, shot, query), seed=draw(SEEDS), stream=draw(STREAMS), rotations=draw(st.booleans())),
    ), bank


def same(one: EpisodeIndices, other: EpisodeIndices) -> bool:
    turns = (one.turns is None and other.turns is None) or torch.equal(one.turns, other.turns)  # type: ignore[arg-type]
    return torch.equal(one.classes, other.classes) and torch.equal(one.images, other.images) and turns


def rows(drawn: EpisodeIndices, at: torch.Tensor) -> EpisodeIndices:
    turns = None if drawn.turns is None else drawn.turns[at]
    return EpisodeIndices(drawn.classes[at], drawn.images[at], drawn.shot, turns)


def check_invariants(drawn: EpisodeIndices, bank: ImageBank, way: int, shot: int, query: int) -> None:
    """Distinct classes, distinct pictures (so support and query share none), exact counts, pictures of their class."""
    tasks = len(drawn.classes)
    assert drawn.classes.shape == (tasks, way)
    assert drawn.images.shape == (tasks, way, shot + query)
    classes = drawn.classes.sort(-1).values
    assert bool((classes.diff(dim=-1) > 0).all())
    pictures = drawn.images.flatten(1).sort(-1).values
    assert bool((pictures.diff(dim=-1) > 0).all())
    low, high = bank.offsets[drawn.classes].unsqueeze(-1), bank.offsets[drawn.classes + 1].unsqueeze(-1)
    assert bool(((drawn.images >= low) & (drawn.images < high)).all())
    assert bool((bank.counts[drawn.classes] >= shot + query).all())
    if drawn.turns is not None:
        assert drawn.turns.shape == (tasks, way)
        assert bool(((drawn.turns >= 0) & (drawn.turns < 4)).all())


@fixed
@given(samplers(), STARTS, st.integers(1, 40))
def test_an_episode_of_any_shape_is_distinct_disjoint_and_exact(drawn_from, start: int, count: int) -> None:
    sampler, bank = drawn_from
    check_invariants(sampler.span(start, count), bank, sampler.way, sampler.shot, sampler.query)


@fixed
@given(samplers(), STARTS, st.integers(2, 30), st.randoms(use_true_random=False))
def test_episodes_do_not_depend_on_order_batch_or_rank(drawn_from, start: int, count: int, rng) -> None:
    sampler, _ = drawn_from
    whole = sampler.span(start, count)
    order = list(range(count))
    rng.shuffle(order)
    at = torch.tensor(order)
    assert same(sampler.draw(start + at), rows(whole, at))  # order
    assert same(sampler.draw(torch.tensor([start, start])), rows(whole, torch.tensor([0, 0])))  # repetition
    cut = rng.randint(1, count - 1)
    assert same(sampler.span(start, cut), rows(whole, torch.arange(cut)))  # batch size
    for rank in range(3):  # ranks take every third
        mine = torch.arange(rank, count, 3)
        if len(mine):
            assert same(sampler.draw(start + mine), rows(whole, mine))


@fixed
@given(samplers(), STARTS)
def test_a_batch_holds_the_pictures_it_names(drawn_from, start: int) -> None:
    sampler, bank = drawn_from
    own = EpisodeSampler(
        bank, Episodes(EpisodeShape(sampler.way, sampler.shot, sampler.query), seed=sampler.seed, stream=sampler.stream)
    )
    batch = make_batch(bank, own.span(start, 3))
    planes = (batch.images[..., 0, 0] * 255).round().long()
    assert torch.equal(planes[..., 0] + 256 * planes[..., 1] + 65536 * planes[..., 2], batch.indices)
    assert batch.support.shape[2] == own.shot
    assert batch.query.shape[2] == own.query
    labels = bank.labels[batch.indices[:, :, own.shot :]].flatten(1)
    assert torch.equal(batch.classes.gather(1, batch.query_labels), labels)


@fixed
@given(SEEDS, SEEDS, STARTS)
def test_another_seed_gives_other_episodes_and_turns_change_no_picture(seed: int, other: int, start: int) -> None:
    assume(other != seed)
    bank = bank_of([30] * 40)
    one, two = (
        EpisodeSampler(bank, Episodes(EpisodeShape(5, 2, 3), seed=number, rotations=True)).span(start, 20)
        for number in (seed, other)
    )
    assert not torch.equal(one.images, two.images)
    plain = EpisodeSampler(bank, Episodes(EpisodeShape(5, 2, 3), seed=seed)).span(start, 20)
    assert torch.equal(plain.images, one.images)


def test_a_million_episodes_keep_the_invariants() -> None:
    """Over ten shapes, three streams and numbers far apart; counted, so that the page that says so is right."""
    shapes = [
        (5, 1, 15),
        (5, 5, 15),
        (20, 1, 15),
        (2, 1, 1),
        (3, 2, 4),
        (10, 1, 5),
        (5, 1, 1),
        (20, 5, 1),
        (7, 3, 3),
        (4, 10, 6),
    ]
    rng = np.random.default_rng(0)
    bank = bank_of([int(size) for size in rng.integers(1, 41, 300)])
    drawn = 0
    for number, (way, shot, query) in enumerate(shapes):
        # the large shapes fewer times: the same work for every shape
        block = max(1, 400_000 // (way * (shot + query)))
        wanted = {0: 60_000, 1: 40_000, 2: 20_000, 3: 330_000, 6: 250_000}.get(number, 60_000)
        done = 0
        while done < wanted:
            stream = ("train", "validation", "test")[(done // block) % 3]
            sampler = EpisodeSampler(
                bank,
                Episodes(
                    EpisodeShape(way, shot, query),
                    seed=int(rng.integers(0, 2**62)),
                    stream=stream,
                    rotations=done % 2 == 0,
                ),
            )
            check_invariants(sampler.span(int(rng.integers(0, 2**40)), block), bank, way, shot, query)
            done += block
        drawn += done
    assert drawn >= 1_000_000


@pytest.mark.parametrize("stream", ["train", "validation", "test"])
@pytest.mark.parametrize(("way", "shot", "query"), [(2, 1, 1), (5, 1, 2), (12, 2, 2)])
def test_classes_pictures_and_their_pairs_are_uniform(stream: str, way: int, shot: int, query: int) -> None:
    """Chi-square at fixed seeds: 9 cases of 4 tests each, refused below one in ten thousand."""
    classes, size = 12, 6
    bank = bank_of([size] * classes)
    drawn = EpisodeSampler(bank, Episodes(EpisodeShape(way, shot, query), seed=11, stream=stream, rotations=True)).span(
        0, 20_000
    )
    limit = 1e-4
    if way < classes:  # at each place every class
        for place in (0, way - 1):
            counts = np.bincount(drawn.classes[:, place].numpy(), minlength=classes)
            assert stats.chisquare(counts).pvalue > limit
    pairs = drawn.classes[:, 0] * classes + drawn.classes[:, 1]
    counts = np.bincount(pairs.numpy(), minlength=classes**2).reshape(classes, classes)
    assert counts.trace() == 0
    assert stats.chisquare(counts[~np.eye(classes, dtype=bool)]).pvalue > limit
    within = drawn.images % size  # at the first and last place every picture, and every ordered pair of the two
    first, last = within[..., 0].flatten().numpy(), within[..., -1].flatten().numpy()
    pairs = np.bincount(first * size + last, minlength=size**2).reshape(size, size)
    assert pairs.trace() == 0
    assert stats.chisquare(pairs[~np.eye(size, dtype=bool)]).pvalue > limit
    assert drawn.turns is not None
    assert stats.chisquare(torch.bincount(drawn.turns.flatten(), minlength=4).numpy()).pvalue > limit


def test_neighbouring_episodes_and_seeds_are_independent() -> None:
    """The first class of an episode tells nothing of the next one's, of the next seed's or of another stream's."""
    classes, count = 10, 20_000
    bank = bank_of([4] * classes)

    def firsts(seed: int, stream: str) -> np.ndarray:
        return (
            EpisodeSampler(bank, Episodes(EpisodeShape(2, 1, 1), seed=seed, stream=stream))
            .span(0, count)
            .classes[:, 0]
            .numpy()
        )

    base = firsts(0, "train")
    for other in (np.roll(base, 1), firsts(1, "train"), firsts(0, "validation"), firsts(0, "test")):
        table = np.bincount(base * classes + other, minlength=classes**2).reshape(classes, classes)
        assert stats.chi2_contingency(table).pvalue > 1e-4


@fixed
@given(
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=40, unique=True),
    st.integers(0, 2**32),
    st.randoms(use_true_random=False),
)
def test_a_folders_split_is_disjoint_complete_and_the_same_in_any_order(names: list[str], seed: int, rng) -> None:
    shares = rng.choice([(0.6, 0.2, 0.2), (0.5, 0.25, 0.25), (0.8, 0.0, 0.2), (1.0, 0.0, 0.0)])
    splits = assign_classes(names, shares, seed)
    assert set(splits) == set(names)
    counts = tuple(sum(split == name for split in splits.values()) for name in ("train", "validation", "test"))
    assert counts == class_counts(len(names), shares)
    shuffled = list(names)
    rng.shuffle(shuffled)
    assert assign_classes(sorted(shuffled), shares, seed) == assign_classes(sorted(names), shares, seed)


@pytest.mark.parametrize(("listed", "sizes"), [(vinyals_split, (1028, 172, 423)), (ravi_split, (64, 16, 20))])
def test_published_splits_are_disjoint_and_whole(listed, sizes: tuple[int, int, int]) -> None:
    parts = [set(listed(split)) for split in ("train", "validation", "test")]
    assert tuple(map(len, parts)) == sizes
    assert len(set.union(*parts)) == sum(sizes)


@fixed
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
def test_a_banks_fingerprint_tells_splits_apart(sizes: list[int], data: st.DataObject) -> None:
    bank = bank_of(sizes)
    assert bank.fingerprint == bank_of(sizes).fingerprint
    changed = list(sizes)
    changed[data.draw(st.integers(0, len(sizes) - 1))] += 1
    assert bank.fingerprint != bank_of(changed).fingerprint
    order = data.draw(st.permutations(range(len(sizes))))
    part = bank.subset(torch.tensor(order))
    assert sorted(part.class_names) == sorted(bank.class_names)
    assert (part.fingerprint == bank.fingerprint) == (list(order) == sorted(order))
    assert bank.with_rotations().fingerprint != bank.fingerprint
