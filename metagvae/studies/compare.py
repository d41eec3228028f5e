"""The work of `metagvae evaluate`: any encoders and runs, on the same episodes, into a table, JSON and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from episodes import Episodes, EpisodeShape, ImageBank, InputError
from episodes.datasets import Dataset, make_dataset
from episodes.paths import expanded
from episodes.picture_marks import classes_with
from episodes.samplers.prescribed import FixedEpisodes
from episodes.shape import Within
from episodes.untrusted.plain_files import read_json
from episodes.untrusted.typed import fits
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.compute.processes import ranks
from metagvae.config.parse import section
from metagvae.config.sections import DataConfig
from metagvae.encoders.controls import CONTROLS, fitted_controls, make_control
from metagvae.encoders.encoder import Encoder
from metagvae.encoders.joined import joined_name, parts
from metagvae.encoders.warp_average import WarpAverage
from metagvae.evaluation.class_interval import percent
from metagvae.evaluation.evaluator import (
    Evaluator,
    PairedDifference,
    Result,
    format_table,
    legend,
)
from metagvae.evaluation.over_seeds import (
    SeedReduction,
    SeedSpread,
    by_method,
    paired_over_seeds,
    seed_reductions,
    spreads_over_seeds,
)
from metagvae.interop.easyfsl import PREFIX, EasyfslLearner
from metagvae.learners import FeatureLearner, Learner, PrototypicalNetwork, make_learner
from metagvae.learners.joined import join_learners
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.run import classes_by_family, provenance, read_config
from metagvae.storage.atomic_files import write_json
from metagvae.zoo.build import check_pictures
from metagvae.zoo.card import counted
from metagvae.zoo.trained import Trained

HEADS = ("prototypes", "ridge", "soft-k-means")  # learners without weights to be trained first


@dataclass
class Comparison:
    """Results in the order the methods were named, and each method's paired difference from the first.

    Attributes:
        results: one per method, data set and shape, training seeds joined.
        single: the results before joining.
        spreads: over training seeds.
        reductions: of each method's error against that of every method named before it, over training seeds.
        notes: what of these could not be, and why.
        methods: what each method is: the encoder's card, and the seconds its training took.
    """

    results: list[Result] = field(default_factory=list)
    differences: list[PairedDifference] = field(default_factory=list)
    single: list[Result] = field(default_factory=list)
    spreads: list[SeedSpread] = field(default_factory=list)
    methods: dict[str, Any] = field(default_factory=dict)
    reductions: list[SeedReduction] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, results: Sequence[Result], methods: dict[str, Any] | None = None) -> Comparison:
        """Joins seeds and pairs every method with the first on the same data and shape."""
        trained = by_method(results)
        baseline = trained[0].result.method
        base = {(t.result.dataset, t.result.way, t.result.shot): t for t in trained if t.result.method == baseline}
        pairs = [
            paired_over_seeds(other, base[r.dataset, r.way, r.shot])
            for other in trained
            for r in [other.result]
            if r.method != baseline and (r.dataset, r.way, r.shot) in base
        ]
        reductions, notes = seed_reductions(trained)
        return cls(
            results=[t.result for t in trained],
            differences=[difference for difference, _ in pairs if difference],
            single=list(results),
            spreads=spreads_over_seeds(trained),
            methods=methods or {},
            reductions=reductions,
            notes=[note for _, note in pairs if note] + notes,
        )

    def table(self) -> str:
        """Errors in percent with 95 % intervals over episodes, then the paired differences."""
        text = legend(self.results) + "\n\n" + format_table(self.results)
        for r in self.results:
            if r.per_run is not None:
                errors = ", ".join(f"{100 * error:g}" for error in r.per_run)
                text += f"\n\n{r.method}: error of each of the {r.episodes} prescribed episodes, %: {errors}"
        if self.differences:
            text += "\n\npaired difference from the first method, in points (negative: errs less)\n"
            for d in self.differences:
                gap = percent(d.difference, d.half_width, d.over_classes, sign="+")
                mark = d.mark()
                text += f"  {d.other}, {d.dataset}, {d.way}-way {d.shot}-shot: {gap}{mark and '   ' + mark}\n"
        if self.spreads:
            text += "\n\nspread over training seeds (standard deviation of the error, in points)\n"
            for s in self.spreads:
                text += (
                    f"  {s.method}, {s.dataset}, {s.way}-way {s.shot}-shot: "
                    f"{100 * s.error:.2f}, sd {100 * s.deviation:.2f}\n"
                )
        if self.reductions:
            text += "\n\nerror reduction in % of the other's error, paired by training seed, 95 % interval over seeds\n"
            text += "".join(f"  {r.text()}\n" for r in self.reductions)
        if self.notes:
            text += "\n\n" + "\n".join(self.notes)
        return text.rstrip()

    def save(self, path: Path) -> None:
        """JSON with every result, every difference, and the command and commit that made them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {
                "provenance": provenance(),
                "results": [r.to_dict() for r in self.results],
                "differences": [d.to_dict() for d in self.differences],
                "seeds": [asdict(s) for s in self.spreads],
                "reductions": [{**asdict(r), "clear_of_zero": r.clear_of_zero} for r in self.reductions],
                "single_seeds": [r.to_dict() for r in self.single] if self.spreads else [],
                "notes": self.notes,
                "methods": self.methods,
            },
        )


def named_encoder(
    name: str | Trained, bank: ImageBank, train: ImageBank | None, features: list[str] | None = None
) -> nn.Module:
    """An encoder by name, for the bank's pictures: a control, a shipped name, an encoder or run folder."""
    if isinstance(name, str) and name in CONTROLS:
        assert train is not None
        return make_control(name, train)
    encoder = zoo.open(name).encoder(features)
    check_pictures(encoder, bank, name)
    return encoder


def head_on(encoder: nn.Module, head: str, options: dict[str, Any]) -> Learner:
    """A learner by name on a frozen encoder; those that begin with ``easyfsl:`` are easyfsl's methods.

    Raises:
        InputError: if there is no such learner for a frozen encoder, or no such option.
    """
    if head.startswith(PREFIX):
        return EasyfslLearner(encoder, head.removeprefix(PREFIX), **options)
    if head not in HEADS:
        raise InputError(
            f"a frozen encoder takes the learner {', '.join(HEADS)}, or a method of easyfsl such as "
            f"{PREFIX}SimpleShot; received {head!r}."
        )
    return make_learner(head, encoder, 0, **options)


def run_learner(run: str | Trained, bank: ImageBank, features: list[str] | None) -> Learner:
    """A run's learner; of a pretraining run, prototypes on its encoder."""
    run = zoo.open(run)
    if run.config["kind"] == "pretrain":
        encoder = run.encoder(features)
        check_pictures(encoder, bank, run)
        return make_learner("prototypes", encoder, 0)
    learner = run.learner()
    assert isinstance(learner.encoder, Encoder)
    check_pictures(learner.encoder, bank, run)
    return learner


def choose_dataset(
    sources: Sequence[str],
    name: str | None,
    root: str | None = None,
    size: int | None = None,
    rotations: str | None = None,
    options: dict[str, Any] | None = None,
) -> Dataset:
    """The data set to measure on; what is not given comes from the first run among ``sources``.

    So that a run is measured on the split that its own data section sets apart, and nothing has to be said twice.
    """
    named = [part for source in sources for part in parts(source)]
    run = next((s for s in named if (expanded(s) / "config.yaml").is_file()), None)
    inherited: dict[str, Any] = asdict(section(DataConfig, read_config(run), "data", run)) if run else {}
    if name not in (None, inherited.get("name")):
        inherited = {}
    if run and root is None and inherited.get("root"):
        _check_root(run, inherited)
    return make_dataset(
        name or inherited.get("name", "glyphs"),
        root=root or inherited.get("root"),
        size=size or inherited.get("size"),
        rotations=rotations or inherited.get("rotations", "none"),
        **{**inherited.get("options", {}), **(options or {})},
    )


def _check_root(run: str, data: dict[str, Any]) -> None:
    """Raises `InputError` if the pictures a run was trained on are not where its config says.

    It says so from the root on; runs of older versions kept the path as it was typed, in another folder perhaps.
    """
    place = expanded(data["root"])
    if not place.exists():
        raise InputError(
            f"the run {run} was trained on the pictures in {place}, which are not there now; say where they are: "
            "--root FOLDER."
        )
    noted = expanded(run) / "data.json"
    if place.is_absolute() or not noted.is_file():
        return
    before = read_json(noted, "what a run notes of its pictures")
    now = make_dataset(data["name"], **{key: data[key] for key in ("root", "size", "rotations")}, **data["options"])
    found = now.load("train")
    if (
        not isinstance(before, dict)
        or before.get("fingerprint") != found.fingerprint
        or (before.get("pixels", found.pixels) != found.pixels)
    ):
        raise InputError(
            f"the run {run} was trained on {data['root']}, as seen from another folder: the pictures in "
            f"{place.absolute()} are others. Say where its own are: --root FOLDER."
        )


def describe(source: str | Trained, joined: int = 1) -> dict[str, Any]:
    """An encoder's or run's card, and the seconds its training took, where known.

    Args:
        joined: how many of its kind are joined to one method.
    """
    if isinstance(source, str) and source in CONTROLS:
        return {"method": CONTROLS[source].method}
    source = zoo.open(source)
    about = asdict(source.card)
    del about["trained_images"]
    # the names stay in the encoder's card, once; a result says how many and which by their hash
    about["trained_classes"] = {family: counted(names) for family, names in source.card.trained_classes.items()}
    if joined > 1:
        about["method"] = f"{joined} joined, each: {about['method']}"
    lines = read_metrics(expanded(source.name))
    seconds = [line["seconds"] for line in lines if fits(line.get("seconds"), float) and line["seconds"] < math.inf]
    if seconds:
        about["training_seconds"] = round(seconds[-1])
    return about


def refuse_trained_classes(source: str | Trained, bank: ImageBank) -> None:
    """Raises `InputError` if classes to be measured on are among those that the run ``source`` was trained on."""
    if bank.split == "train" or (isinstance(source, str) and source in CONTROLS):
        return
    card, asked = zoo.open(source).card, classes_by_family(bank.dataset, bank.class_names)
    shared = {name for kin, names in asked.items() for name in names & set(card.trained_classes.get(kin, []))}
    again = classes_with(bank, set(card.trained_images))  # under another name
    shared |= {name for names in classes_by_family(bank.dataset, again).values() for name in names}
    if shared:
        raise InputError(
            f"{len(shared)} of the {sum(map(len, asked.values()))} classes of the {bank.split} split were trained "
            f"on by {source}, {sorted(shared)[0]!r} among them, so its error on them would mean nothing. Measure with "
            "the run's own data options, or on another data set."
        )


def _fitted_on(fit_data: Dataset | None, dataset: Dataset, control: str) -> ImageBank:
    """The training pictures that a control is fitted on."""
    if fit_data is not None:
        return fit_data.load("train")
    try:
        return dataset.load("train")
    except InputError as error:
        raise InputError(
            f"the control {control!r} is fitted on training images, and there are none: {error} Name a data set of the "
            f"same kind of images for that, such as --fit_data glyphs, or leave {control!r} out."
        ) from error


def compare(
    dataset: Dataset,
    encoders: Sequence[str] = (),
    runs: Sequence[str] = (),
    ways: Sequence[int] | None = None,
    shots: Sequence[int] | None = None,
    query: int = 15,
    episodes: int = 1000,
    seed: int = 0,
    split: str = "test",
    heads: Sequence[str] = ("prototypes",),
    head_options: dict[str, Any] | None = None,
    features: list[str] | None = None,
    device: Device | None = None,
    fit_data: Dataset | None = None,
    within: Within | None = None,
    warps: int = 0,
    unit: str | None = None,
    progress: bool = False,
) -> Comparison:
    """Measures every named method on the same episodes of a split.

    Args:
        dataset: whose ``split`` the episodes are drawn from.
        encoders: controls (pixels, pca, random), shipped names, encoder or run folders; all get each of ``heads``.
        runs: run folders, each with its own learner; errors of names that differ in a trailing -seedN are averaged.
            ``A+B``, here and among the encoders, is one method that has the features of both
            (`metagvae.encoders.joined`).
        heads: learners on the frozen encoders, of `HEADS` or easyfsl's, such as ``easyfsl:SimpleShot``; of several, the
            inductive ones come first.
        ways, shots: every pair of them is measured; None takes what the data set prescribes, else 5 and 1.
        features: what the encoders return; None keeps each one's own choice.
        fit_data: whose training split the controls pca and random are fitted on; None takes ``dataset``.
        within: draw the classes of an episode among those that share a value of an attribute.
        warps: average each picture's features with those of so many warped copies.
        unit: what the interval over classes is taken by: ``class`` or an attribute such as ``alphabet``; None takes
            the alphabet or script where the classes have one, else the class.
        progress: show on stderr how far it is, once it takes more than seconds.

    Raises:
        InputError: before any measuring, if a method, a shape or the data cannot be had.
    """
    if not encoders and not runs:
        raise InputError("evaluate needs something to evaluate: --run FOLDER or --encoder NAME (or both).")
    usual = dataset.prescribed or (5, 1)
    # each once: a shape given twice would pass for a second training seed
    shapes = list(dict.fromkeys((way, shot) for way in ways or usual[:1] for shot in shots or usual[1:]))
    for way, shot in shapes:
        dataset.check_episodes(split, EpisodeShape(way, shot, query))
    with ranks().first_here():
        bank = dataset.load(split)
    prescribed = dataset.fixed_episodes(bank)
    if prescribed is not None and within is not None:
        raise InputError(f"{bank.dataset} prescribes its episodes; leave out --within.")
    fixed = FixedEpisodes(prescribed) if prescribed is not None else None
    drawn = Episodes(EpisodeShape(*shapes[0], query), seed, split, dataset.rotations == "episode", within, fixed)
    evaluator = Evaluator(bank, drawn, episodes, device, unit)
    evaluator.progress, evaluator.frozen = progress, True
    for way, shot in shapes:
        evaluator.check(way, shot)
    fitted = fitted_controls(part for name in encoders for part in parts(name))
    with ranks().first_here():
        train = _fitted_on(fit_data, dataset, fitted[0]) if fitted else bank
    if train.image_shape != bank.image_shape or train.polarity != bank.polarity:
        raise InputError(
            f"the controls would be fitted on {train.dataset} ({train.image_shape}, {train.polarity}) and measured on "
            f"{bank.dataset} ({bank.image_shape}, {bank.polarity}); choose fit_data of the same kind of pictures."
        )
    for folder in (folder for name in runs for folder in parts(name)):
        if not (expanded(folder) / "config.yaml").is_file():
            raise InputError(f"{folder} is no run folder: it has no config.yaml.")
    # each is opened once; a control is known by its name alone
    opened = {
        name: [part if part in CONTROLS else zoo.open(part) for part in parts(name)] for name in (*encoders, *runs)
    }
    for name in runs:
        for run in opened[name]:
            _ = zoo.open(run).config  # says so if it is no run folder
    for part in (part for each in opened.values() for part in each):
        refuse_trained_classes(part, bank)
    learners: dict[str, Learner] = {}
    methods: dict[str, Any] = {}

    def add(name: str, learner: Learner, head: str = "") -> None:
        method = head + joined_name(name)
        method = method if method not in learners else head + name
        learners[method] = learner
        methods[method] = describe(opened[name][0], len(opened[name]))

    for name in encoders:
        joined = [PrototypicalNetwork(named_encoder(part, bank, train, features)) for part in opened[name]]
        encoder = join_learners(joined, name).encoder
        made = [head_on(encoder, head, head_options or {}) for head in dict.fromkeys(heads)]
        for learner in sorted(made, key=lambda learner: learner.transductive):
            add(name, learner, f"{learner.name} on " if len(made) > 1 else "")
    for name in runs:
        learner = join_learners([run_learner(part, bank, features) for part in opened[name]], name)
        if learner.way is not None and {way for way, _ in shapes} != {learner.way}:
            raise InputError(
                f"the run {name} trained the learner '{learner.name}' with a head of {learner.way} ways; ask for "
                f"--way {learner.way}."
            )
        add(name, learner)
    averaged: dict[nn.Module, nn.Module] = {}  # learners on one encoder keep one encoder
    for method, learner in learners.items():
        if warps:
            if not isinstance(learner, FeatureLearner):
                raise InputError(
                    f"the learner '{learner.name}' of {method} has no features to average; leave out warps."
                )
            plain = learner.encoder
            averaged[plain] = learner.encoder = averaged.get(plain) or WarpAverage(plain, warps)
    results = [r for method, learner in learners.items() for r in evaluator.measure(method, learner, shapes)]
    return Comparison.of(results, methods)
