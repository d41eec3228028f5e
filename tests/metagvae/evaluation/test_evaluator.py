from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from episodes import Episodes, EpisodeSampler, EpisodeShape, InputError, make_batch
from episodes.datasets import make_dataset
from metagvae.encoders.controls import PCA, Pixels, random_encoder
from metagvae.evaluation.over_seeds import by_method
from metagvae.evaluation.results import Result, format_table, interval, interval_over_units, paired_difference
from metagvae.learners import make_learner
from metagvae.studies.compare import compare
from metagvae.studies.comparison import Comparison
from metagvae.studies.protocol import Protocol
from tests.support.banks import stripes
from tests.support.measuring import encoder, evaluator, noisy


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("head", ["prototypes", "ridge"])
def test_features_drawn_once_give_exactly_the_per_episode_errors(head: str, turns: bool) -> None:
    learner = make_learner(head, encoder(), 0).eval()
    fast = evaluator(rotations=turns)
    (errors,) = fast.errors(learner, [(4, 2)])
    bank = noisy()
    sampler = EpisodeSampler(bank, Episodes(EpisodeShape(4, 2, 3), seed=0, stream="test", rotations=turns))
    slow = []
    with torch.no_grad():
        for number in range(50):
            batch = make_batch(bank, sampler.span(number, 1))
            logits = learner.predict(learner.adapt(batch.support), batch.query)
            slow.append(float((logits.argmax(-1) != batch.query_labels).double().mean()))
    assert np.allclose(errors, slow, atol=1e-6)


def test_per_task_norms_are_evaluated_per_task() -> None:
    learner = make_learner("prototypes", encoder("support"), 0).eval()
    (errors,) = evaluator().errors(learner, [(4, 2)])
    bank = noisy()
    sampler = EpisodeSampler(bank, Episodes(EpisodeShape(4, 2, 3), seed=0, stream="test"))
    with torch.no_grad():
        batch = make_batch(bank, sampler.span(11, 1))
        logits = learner.predict(learner.adapt(batch.support), batch.query)
    assert errors[11] == pytest.approx(float((logits.argmax(-1) != batch.query_labels).double().mean()))


def test_pixels_agree_with_scikit_learns_nearest_centroid() -> None:
    from sklearn.neighbors import NearestCentroid

    (errors,) = evaluator().errors(make_learner("prototypes", Pixels(), 0), [(4, 2)])
    bank = noisy()
    for number in range(10):
        batch = make_batch(
            bank, EpisodeSampler(bank, Episodes(EpisodeShape(4, 2, 3), seed=0, stream="test")).span(number, 1)
        )
        support = batch.support[0].flatten(2).flatten(0, 1).numpy()
        model = NearestCentroid().fit(support, np.repeat(np.arange(4), 2))
        predicted = model.predict(batch.query[0].flatten(2).flatten(0, 1).numpy())
        assert errors[number] == pytest.approx((predicted != batch.query_labels[0].numpy()).mean())


def test_interval_is_the_normal_one_of_scipy() -> None:
    values = np.random.default_rng(0).random(500)
    low, high = stats.norm.interval(0.95, values.mean(), stats.sem(values))
    assert interval(values) == pytest.approx((high - low) / 2, rel=1e-3)
    assert np.isnan(interval(values[:1]))


def test_the_interval_over_equal_units_is_that_of_their_means() -> None:
    generator = np.random.default_rng(0)
    means = generator.normal(size=7)
    values = (means[:, None] + generator.normal(size=(7, 5))).ravel()
    units = 10 * np.arange(7).repeat(5)
    low, high = stats.ttest_1samp(values.reshape(7, 5).mean(1), 0).confidence_interval(0.95)
    order = generator.permutation(35)
    assert interval_over_units(values[order], units[order]) == pytest.approx((high - low) / 2)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval_over_units(values, np.arange(35)) == pytest.approx((high - low) / 2)
    assert np.isnan(interval_over_units(values, np.zeros(35, dtype=int)))


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        sample = generator.beta(1, 4, 200)
        hits += abs(sample.mean() - 0.2) <= interval(sample)
    assert 0.92 < hits / 400 < 0.98


def test_paired_difference_is_scipys() -> None:
    meter = evaluator()
    one = meter.measure("a", make_learner("prototypes", encoder(seed=0), 0), [(5, 1)])[0]
    other = meter.measure("b", make_learner("prototypes", Pixels(), 0), [(5, 1)])[0]
    gap = paired_difference(other, one)
    test = stats.ttest_rel(other.per_episode, one.per_episode)
    assert gap.difference == pytest.approx(other.error - one.error)
    assert gap.half_width == pytest.approx(abs(gap.difference / test.statistic) * 1.96)
    assert gap.half_width < one.half_width + other.half_width


def test_results_on_other_episodes_do_not_pair() -> None:
    learner = make_learner("prototypes", Pixels(), 0)
    one = evaluator(seed=0).measure("a", learner, [(5, 1)])[0]
    with pytest.raises(InputError, match="seed"):
        paired_difference(evaluator(seed=1).measure("b", learner, [(5, 1)])[0], one)


def test_seeds_are_joined_and_their_spread_is_apart() -> None:
    meter = evaluator()
    results = [meter.measure("pixels", make_learner("prototypes", Pixels(), 0), [(5, 1)])[0]]
    for seed in range(3):
        results += meter.measure(f"net-seed{seed}", make_learner("prototypes", encoder(seed=seed), 0), [(5, 1)])
    joined, spreads = [t.result for t in by_method(results)], Comparison.of(results).spreads
    assert [r.method for r in joined] == ["pixels", "net (3 seeds)"]
    assert joined[1].error == pytest.approx(np.mean([r.error for r in results[1:]]))
    assert spreads[0].deviation == pytest.approx(np.std([r.error for r in results[1:]], ddof=1))
    comparison = Comparison.of(results)
    assert "spread over training seeds" in comparison.table()
    assert len(comparison.differences) == 1
    assert joined[1].per_run is None
    prescribed = [replace(r, per_run=r.per_episode.tolist()) for r in results]
    assert by_method(prescribed)[1].result.per_run == pytest.approx(
        np.mean([r.per_episode for r in results[1:]], axis=0)
    )


def test_reductions_pair_training_seeds_as_scipy_does() -> None:
    meter = evaluator()
    results = [meter.measure("pixels", make_learner("prototypes", Pixels(), 0), [(5, 1)])[0]]
    for name, width in (("narrow", 4), ("wide", 16)):
        for seed in range(4 if name == "narrow" else 3):
            net = make_learner("prototypes", encoder(width=width, seed=seed), 0)
            results += meter.measure(f"{name}-seed{seed}", net, [(5, 1)])
    (found,) = Comparison.of(results).reductions
    assert (found.other, found.baseline, found.seeds) == ("wide", "narrow", 3)
    errors = {r.method: r.error for r in results}
    parts = [1 - errors[f"wide-seed{s}"] / errors[f"narrow-seed{s}"] for s in range(3)]
    low, high = stats.ttest_1samp(parts, 0).confidence_interval(0.95)
    assert found.reduction - found.half_width == pytest.approx(low)
    assert found.reduction + found.half_width == pytest.approx(high)
    assert found.clear_of_zero == (low > 0 or high < 0)
    assert found.text() in Comparison.of(results).table()


def results(*methods: str, **errors: float) -> list[Result]:
    """One shape's results of methods by name; of a keyword such as ``x_3`` a result x-seed3 of that error."""
    (one,) = evaluator().measure("pixels", make_learner("prototypes", Pixels(), 0), [(5, 1)])
    found = [replace(one, method=name) for name in methods]
    for name, error in errors.items():
        stem, _, seed = name.rpartition("_")
        parts = np.full(50, error) + np.linspace(-0.01, 0.01, 50) * (error > 0)
        found.append(replace(one, method=f"{stem}-seed{seed}", error=error, per_episode=parts))
    return found


def test_a_seed_is_kept_as_what_differs_from_the_joined_result(tmp_path: Path) -> None:
    meter = evaluator()
    results = meter.measure("pixels", make_learner("prototypes", Pixels(), 0), [(5, 1), (3, 2)])
    for seed in range(2):
        net = make_learner("prototypes", encoder(width=4, seed=seed), 0)
        results += meter.measure(f"net-seed{seed}", net, [(5, 1), (3, 2)])
    Comparison.of(results).save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    joined = {(r["method"], r["way"], r["shot"]): r for r in content["results"]}
    rows = content["single_seeds"]
    whole = [{**joined[row.pop("joined"), row["way"], row["shot"]], "encoder": row["method"], **row} for row in rows]
    by_name = {(row["method"], row["way"]): row for row in whole}
    expected = [r.to_dict() for r in results if r.method != "pixels"]
    assert len(rows) == len(expected) == 4
    assert all(by_name[r["method"], r["way"]] == r for r in expected)
    assert all("split_hash" not in row for row in rows)


def test_a_name_without_a_seed_is_no_seed_of_another() -> None:
    found = Comparison.of(results("x", x_0=0.1, x_1=0.2))
    assert [r.method for r in found.results] == ["x", "x (2 seeds)"]
    assert found.results[1].error == pytest.approx(0.15)
    alone = Comparison.of(results("x", x_0=0.1))
    assert [r.method for r in alone.results] == ["x", "x-seed0"]


def test_networks_of_several_seeds_side_by_side_are_of_no_seed() -> None:
    """a-seed0+a-seed1 is one method, not seed 1 of a method that is called a-seed0+a."""
    one, *others = results("a-seed0+a-seed1", "a-seed0+a-seed2", a_1=0.1, a_2=0.2)
    joined = replace(one, error=0.05, per_episode=np.full(50, 0.05))
    found = Comparison.of([joined, *others])
    assert [r.method for r in found.results] == ["a-seed0+a-seed1", "a-seed0+a-seed2", "a (2 seeds)"]
    assert [d.difference for d in found.differences][1] == pytest.approx(0.15 - 0.05)
    assert not found.reductions
    assert not found.notes
    # of one seed, or where one part alone names a seed, it is a method trained from several seeds
    for name in ("x-seed{}+y-seed{}", "shipped+y-seed{}", "y-seed{}+shipped"):
        pair = [replace(r, method=name.format(seed, seed)) for seed, r in enumerate(others[-2:])]
        (mean,) = Comparison.of(pair).results
        assert mean.method == f"{name.replace('-seed{}', '')} (2 seeds)"
        assert mean.error == pytest.approx(0.15)


def test_what_was_measured_in_another_way_is_no_seed_of_it() -> None:
    one, two, three, four = results(x_0=0.1, x_1=0.2, x_2=0.3, x_3=0.4)
    ridge = [replace(r, learner="ridge") for r in (three, four)]
    found = Comparison.of([one, two, *ridge])
    assert [r.error for r in found.results] == pytest.approx([0.15, 0.35])
    assert len({r.method for r in found.results}) == 2
    other = Comparison.of([one, replace(two, method="x_seed0"), replace(three, method="x-seed00")])
    assert [len(t.seeds) for t in by_method(other.single)] == [1, 1, 0]


def test_a_paired_difference_is_over_the_seeds_that_both_have() -> None:
    found = Comparison.of(results(a_0=0.1, a_1=0.2, a_2=0.9, b_0=0.3, b_1=0.5))
    (gap,) = found.differences
    assert gap.difference == pytest.approx(0.4 - 0.15)
    assert (gap.other, gap.baseline) == ("b (2 seeds)", "a (3 seeds)")
    assert "paired over seeds 0, 1 alone" in found.table()
    none = Comparison.of(results(a_0=0.1, a_1=0.2, b_2=0.3, b_3=0.5, b_4=0.5))
    assert not none.differences
    assert "share no training seed and have 3 and 2 of them" in none.table()
    assert not Comparison.of(results("pixels", a_0=0.1, a_1=0.2)).notes


def test_seeds_without_a_mistake_are_left_out_aloud(tmp_path: Path) -> None:
    errors = {"a_0": 0.2, "a_1": 0.4, "a_2": 0.1, "a_3": 0.0, "b_0": 0.1, "b_1": 0.1, "b_2": 0.1, "b_3": 0.1}
    found = Comparison.of(results(**errors))
    (reduction,) = found.reductions
    assert (reduction.seeds, reduction.left_out) == (3, (3,))
    assert reduction.reduction == pytest.approx((0.5 + 0.75 + 0) / 3)
    assert "without seeds 3: no mistake of the baseline's" in found.table()
    perfect = Comparison.of(results(a_0=0.0, a_1=0.0, b_0=0.1, b_1=0.1))
    assert not perfect.reductions
    assert "the baseline makes no mistake with seeds 0, 1" in perfect.table()
    perfect.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["notes"] == perfect.notes


def test_two_seeds_give_no_interval() -> None:
    (reduction,) = Comparison.of(results(a_0=0.2, a_1=0.4, b_0=0.1, b_1=0.3)).reductions
    assert reduction.half_width is None
    assert not reduction.clear_of_zero
    assert "37.5 (2 seeds: fewer than 3, so no interval)" in reduction.text()


def test_a_shape_asked_for_twice_is_not_two_training_seeds() -> None:
    found = compare(make_dataset("digits"), ["pixels"], protocol=Protocol([5, 5], [1, 1], episodes=5))
    assert len(found.results) == 1
    assert not found.spreads


def test_a_result_carries_all_that_the_contract_asks(tmp_path: Path) -> None:
    results = evaluator(seed=7).measure("net", make_learner("prototypes", encoder("support"), 0), [(5, 1), (3, 2)])
    Comparison.of(results).save(tmp_path / "out" / "r.json")
    content = json.loads((tmp_path / "out" / "r.json").read_text())
    keys = {
        "dataset",
        "split",
        "split_hash",
        "way",
        "shot",
        "query",
        "episodes",
        "seed",
        "encoder",
        "learner",
        "norm",
        "transductive",
        "error",
        "half_width",
    }
    assert keys <= content["results"][0].keys()
    assert content["results"][0]["seed"] == 7
    assert content["results"][0]["norm"] == "support"
    assert {"command", "commit", "torch"} <= content["provenance"].keys()
    assert "±" in format_table(results)


def test_same_seed_same_result_other_seed_another() -> None:
    learner = make_learner("prototypes", Pixels(), 0)
    first = evaluator(seed=0).errors(learner, [(5, 1)])[0]
    assert np.array_equal(first, evaluator(seed=0).errors(learner, [(5, 1)])[0])
    assert not np.array_equal(first, evaluator(seed=1).errors(learner, [(5, 1)])[0])


def test_pca_is_scikit_learns() -> None:
    from sklearn.decomposition import PCA as Solver

    bank = stripes(12, 8)
    images = bank.images.float() / 255
    ours = PCA(bank, 5)(images)
    theirs = Solver(5, svd_solver="full").fit_transform(images.flatten(1).numpy())
    assert np.allclose(ours.abs().numpy(), np.abs(theirs), atol=1e-2)


def test_random_encoder_is_calibrated_and_seeded() -> None:
    bank = stripes(12, 8, 28)
    one = random_encoder(bank, 0)
    x = bank.images.float() / 255
    assert 0.05 < float(one(x).detach().std()) < 20
    assert torch.equal(one(x), random_encoder(bank, 0)(x))
    assert not torch.equal(one(x), random_encoder(bank, 1)(x))
    assert isinstance(one, nn.Module)
    assert not one.training
