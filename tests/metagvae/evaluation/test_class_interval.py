"""The interval over classes: against brute force, exact cases, and planted class effects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from episodes import Episodes, EpisodeShape, ImageBank, InputError
from episodes.bank import Attribute
from metagvae.compute.device import Device
from metagvae.encoders.controls import Pixels
from metagvae.evaluation.class_interval import ClassJackknife, ClassTally, class_units, percent, signed
from metagvae.evaluation.evaluator import Evaluator
from metagvae.evaluation.over_seeds import by_method
from metagvae.evaluation.results import legend, paired_difference
from metagvae.learners import make_learner
from metagvae.studies.comparison import Comparison
from tests.support.banks import stripes

FLOAT32 = Device(torch.device("cpu"), autocast=False)


def empty(groups: int, each: int = 1, names: tuple[str, ...] | None = None) -> ImageBank:
    """A bank of no interest but for its classes: ``each`` of an alphabet, where there is more than one."""
    count = groups * each
    alphabet = Attribute(torch.arange(count) // each, tuple(map(str, range(groups))))
    return ImageBank(
        torch.zeros(count, 1, 1, 1, dtype=torch.uint8),
        torch.arange(count + 1),
        names or tuple(f"c{number}" for number in range(count)),
        attributes={"alphabet": alphabet} if each > 1 else {},
    )


def drawn(seed: int, groups: int, each: int, way: int, episodes: int, queries: int = 10) -> ClassJackknife:
    """Nearest prototypes of one example among Gaussian classes; an alphabet has its own place and its own width."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    means = (0.6 * normal(groups, 1, 8) + normal(groups, each, 8)).reshape(-1, 8)
    widths = 0.5 * torch.exp(0.4 * normal(groups, 1) + 0.4 * normal(groups, each)).reshape(-1)
    tally = ClassTally(empty(groups, each))
    for _ in range(0, episodes, 100):
        classes = torch.rand(100, len(means), generator=generator).argsort(1)[:, :way]
        support = means[classes] + normal(100, way, 8) * widths[classes][..., None]
        spread = normal(100, way, queries, 8) * widths[classes][..., None, None]
        queried = (means[classes][:, :, None] + spread).flatten(1, 2)
        first, second = torch.cdist(queried, support).topk(2, largest=False).indices.unbind(-1)
        tally.add(classes, first, second, torch.arange(way).repeat_interleave(queries).expand(100, -1))
    return tally.result()


@pytest.mark.parametrize(
    ("groups", "each", "way", "least"), [(3, 1, 3, 0.78), (8, 1, 5, 0.88), (20, 1, 5, 0.9), (12, 10, 5, 0.9)]
)
def test_it_covers_the_mean_over_all_classes_and_the_error_on_others(
    groups: int, each: int, way: int, least: float
) -> None:
    """Of 120 draws of classes nearly 95 % hold the grand mean, and other draws fall where they are said to.

    Three classes are few, and the distribution of their error is skewed: there it holds less often.
    """
    found = [drawn(seed, groups, each, way, 200) for seed in range(120)]
    errors = np.array([one.error for one in found])
    intervals = [one.interval() for one in found]
    held = np.mean([one.low <= errors.mean() <= one.high for one in intervals])
    others = np.mean(
        [one.other_low <= error <= one.other_high for one, error in zip(intervals, np.roll(errors, 1), strict=True)]
    )
    assert least <= held <= 0.99
    assert least - 0.02 <= others <= 0.99
    # and the interval over episodes alone does not
    alone = 1.96 * np.sqrt(errors.mean() * (1 - errors.mean()) / (200 * way * 10))
    assert np.mean(np.abs(errors - errors.mean()) <= alone) < 0.6


def test_mistakes_of_a_class_alone_give_the_usual_interval_of_a_mean() -> None:
    """Where nothing is to be blamed on what a query was put into, it is the t interval of the classes' errors."""
    rates = np.random.default_rng(0).integers(0, 9, 7)
    tally = ClassTally(empty(7))
    labels = torch.arange(7).repeat_interleave(10)[None]
    wrong = torch.tensor([place % 10 < rates[place // 10] for place in range(70)])[None]
    answers = torch.where(wrong, (labels + 1) % 7, labels)
    tally.add(torch.arange(7)[None], answers, (labels + 2) % 7, labels)
    found = tally.result().interval()
    low, high = stats.t.interval(0.95, 6, (rates / 10).mean(), stats.sem(rates / 10))
    assert found.half_width == pytest.approx((high - low) / 2)
    assert (found.unit, found.units, found.classes) == ("class", 7, 7)


def test_of_pairs_it_is_the_jackknife_by_brute_force() -> None:
    """Two ways: an episode is a pair, and what is left without a class is the episodes it is not in."""
    generator = torch.Generator().manual_seed(1)
    pairs = torch.combinations(torch.arange(6), 2)
    labels = torch.tensor([[0, 0, 0, 1, 1, 1]]).expand(len(pairs), -1)
    answers = torch.where(torch.rand(labels.shape, generator=generator) < 0.4, 1 - labels, labels)
    tally = ClassTally(empty(6))
    tally.add(pairs, answers, 1 - answers, labels)
    errors = (answers != labels).double().mean(1)
    without = [float(errors[(pairs != left).all(1)].mean()) for left in range(6)]
    assert tally.result().without == pytest.approx(without)


def test_episodes_within_an_alphabet_are_left_out_whole() -> None:
    generator = torch.Generator().manual_seed(2)
    alphabets = torch.arange(40) % 4
    classes = alphabets[:, None] * 5 + torch.rand(40, 5, generator=generator).argsort(1)[:, :3]
    labels = torch.arange(3).repeat_interleave(4).expand(40, -1)
    answers, others = torch.randint(3, (2, *labels.shape), generator=generator).unbind()
    tally = ClassTally(empty(4, 5))
    tally.add(classes, answers, others, labels)
    errors = (answers != labels).double().mean(1)
    found = tally.result()
    assert found.without == pytest.approx([float(errors[alphabets != left].mean()) for left in range(4)])
    assert (found.unit, found.classes) == ("alphabet", 20)


def test_units_are_alphabets_else_classes_with_their_turns() -> None:
    assert class_units(empty(4, 3))[0] == "alphabet"
    assert class_units(empty(4, 3), "class")[1].tolist() == list(range(12))
    assert class_units(empty(2, 6))[0] == "class"  # two alphabets tell nothing of others
    turned = stripes(3, 4).with_rotations()
    name, units = class_units(turned)
    assert (name, units.tolist()) == ("class", [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    assert class_units(turned, "third")[0] == "third"
    with pytest.raises(InputError, match=r"by 'class' or by an attribute .*third.*received 'colour'"):
        class_units(turned, "colour")
    unknown = empty(4, 3)
    unknown.attributes["alphabet"].values[:2] = -1
    assert len(class_units(unknown)[1].unique()) == 6


def test_too_few_units_say_so_and_no_mistake_is_not_certainty() -> None:
    two = ClassJackknife("class", 2, 0.25, np.array([0.1, 0.4])).interval()
    assert (two.half_width, two.low, two.high) == (None, 0.0, 1.0)
    lone = ClassJackknife("class", 3, 0.25, np.array([0.1, 0.4, np.nan])).interval(difference=True)
    assert (lone.low, lone.high, lone.clear_of_zero) == (-1.0, 1.0, False)
    none = ClassJackknife("class", 3, 0.0, np.zeros(3)).interval()
    assert (1 - none.high) ** 3 == pytest.approx(0.05)
    wide = ClassJackknife("class", 3, 0.2, np.array([0.0, 0.2, 0.4])).interval()
    assert wide.half_width == pytest.approx(4.3027 * np.sqrt(2 / 3 * 0.08), rel=1e-4)
    part = (wide.half_width or 0) / 0.16
    assert (wide.low, wide.high) == pytest.approx((1 / (1 + 4 * np.exp(part)), 1 / (1 + 4 * np.exp(-part))))
    gap = ClassJackknife("class", 3, 0.2, np.array([0.0, 0.2, 0.4])).interval(difference=True)
    assert (gap.low, gap.high) == (pytest.approx(0.2 - (wide.half_width or 0)), 1.0)


def measured(names: list[str], **options: object) -> Comparison:
    drawn = Episodes(EpisodeShape(4, 2, 3), stream="test")
    meter = Evaluator(stripes(noise=4.0), drawn, 60, FLOAT32, **options)  # type: ignore[arg-type]
    found = []
    for number, name in enumerate(names):
        head = make_learner("prototypes", Pixels(), 0, **({"distance": "cosine"} if number else {}))
        found += meter.measure(name, head, [(4, 2)])
    return Comparison.of(found)


def test_every_result_and_difference_carries_it(tmp_path: Path) -> None:
    comparison = measured(["a", "b"])
    first, second = comparison.results
    (gap,) = comparison.differences
    assert first.classes is not None
    assert second.classes is not None
    assert gap.classes is not None
    assert first.classes.error == pytest.approx(first.error, abs=1e-6)
    assert gap.classes.without == pytest.approx(second.classes.without - first.classes.without)
    assert gap.classes.error == pytest.approx(gap.difference, abs=1e-6)
    comparison.save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    for row in (*content["results"], *content["differences"]):
        assert {"unit", "units", "low", "high", "other_low", "other_high", "without"} <= row["over_classes"].keys()
    over = first.over_classes
    assert over is not None
    assert content["results"][0]["over_classes"]["high"] == over.high
    table = comparison.table()
    # twelve classes are few: theirs comes first
    cell = f"{100 * first.error:.2f} [{100 * over.low:.2f}, {100 * over.high:.2f}] ± {100 * first.half_width:.2f}"
    assert cell in table
    assert "[95 % interval over the 12 classes] ± half" in table
    assert gap.mark() in table


def test_an_attribute_by_name_is_the_unit() -> None:
    over = measured(["a"], unit="third").results[0].over_classes
    assert over is not None
    assert over.drawn() == "3 thirds"


def test_seeds_are_averaged_unit_by_unit() -> None:
    comparison = measured(["x-seed0", "x-seed1"])
    one, two = comparison.single
    (joined,) = (trained.result for trained in by_method([one, two]))
    assert joined.classes is not None
    assert one.classes is not None
    assert two.classes is not None
    assert joined.classes.without == pytest.approx((one.classes.without + two.classes.without) / 2)
    assert joined.classes.error == pytest.approx(joined.error, abs=1e-6)


def test_chunks_and_processes_add_up() -> None:
    learner = make_learner("prototypes", Pixels(), 0)
    meter = Evaluator(stripes(noise=4.0), Episodes(EpisodeShape(4, 2, 3), stream="test"), 60, FLOAT32)
    ((_, whole),) = meter.tallied(learner, [(4, 2)])
    meter._episodes_at_once = lambda *_: 7  # type: ignore[method-assign]
    ((_, parts),) = meter.tallied(learner, [(4, 2)])
    assert np.array_equal(whole.without, parts.without)


def test_a_result_of_before_is_shown_as_it_was() -> None:
    assert percent(0.1234, 0.005) == "12.34 ± 0.50"
    comparison = measured(["a", "b"])
    for result in comparison.results:
        result.classes = None
    assert legend(comparison.results) == "few-shot error in %, mean ± half of the 95 % interval over episodes"
    assert paired_difference(*comparison.results).over_classes is None


def test_what_rounds_to_zero_has_no_minus() -> None:
    assert signed(-0.004) == "+0.00"
    assert signed(-0.0, "") == "0.00"
    assert signed(-0.006) == "-0.01"
    assert percent(-0.00002, 0.001, sign="+") == "+0.00 ± 0.10"
