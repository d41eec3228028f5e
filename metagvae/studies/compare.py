"""The work of `metagvae evaluate`: encoders and runs, each by its name, on the same episodes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from episodes import Episodes, EpisodeShape, ImageBank, InputError
from episodes.datasets import Dataset
from episodes.paths import expanded
from episodes.samplers.prescribed import FixedEpisodes
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.compute.processes import ranks
from metagvae.encoders.controls import CONTROLS, fitted_controls
from metagvae.encoders.joined import parts
from metagvae.encoders.warp_average import WarpAverage
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import FeatureLearner, Learner
from metagvae.learners.joined import join_learners
from metagvae.studies.comparison import Comparison
from metagvae.studies.methods import counterfactual_learner, describe, encoder_learners, run_learner
from metagvae.studies.naming import short_names, unlike_seeds
from metagvae.studies.protocol import Head, Protocol
from metagvae.zoo.leakage import refuse_trained_classes
from metagvae.zoo.trained import Trained

Opened = dict[str, list[str | Trained]]  # a method's parts by its name; a control is known by its name alone


def compare(
    dataset: Dataset,
    encoders: Sequence[str] = (),
    runs: Sequence[str] = (),
    protocol: Protocol | None = None,
    head: Head | None = None,
    fit_data: Dataset | None = None,
    device: Device | None = None,
    progress: bool = False,
) -> Comparison:
    """Measures every named method on the same episodes.

    Args:
        dataset: the images that the episodes are drawn from.
        encoders: controls (pixels, pca, random), shipped names, encoder or run folders; all get every learner of
            ``head``.
        runs: run folders, each with its own learner; errors of names that differ in a trailing -seedN are averaged.
            ``A+B``, here and among the encoders, is one method that has the features of both
            (`metagvae.encoders.joined`).
        protocol: which episodes.
        head: what stands on the encoders; its features and warps are those of the runs too.
        fit_data: whose training split the controls pca and random are fitted on; None takes ``dataset``.
        progress: show on stderr how far it is, once it takes more than seconds.

    Raises:
        InputError: before any measuring, if a method, a shape or the data cannot be had.

    Example:
        >>> from episodes.datasets import make_dataset
        >>> from metagvae.studies.compare import compare
        >>> from metagvae.studies.protocol import Protocol
        >>> found = compare(make_dataset("digits"), ["pixels"], protocol=Protocol(ways=[3], episodes=5))
        >>> print(found.results[0].method)
        pixels
    """
    if not encoders and not runs:
        raise InputError("evaluate needs something to evaluate: --run FOLDER or --encoder NAME (or both).")
    encoders, runs = list(dict.fromkeys(encoders)), list(dict.fromkeys(runs))  # twice is once
    protocol, head = protocol or Protocol(), head or Head()
    if head.votes is not None and not any(len(parts(name)) > 1 for name in [*encoders, *runs]):
        raise InputError("--votes weighs the parts of a joined encoder, and none is asked for; name one as A+B.")
    if not runs and head.counterfactual:
        raise InputError("--counterfactual draws support images by a run's prior, and none is asked for: --run FOLDER.")
    if not encoders and (head.learner or head.head or head.head_options):
        raise InputError(
            "--learner and --head_options are of the head on an encoder, and a run has a head of its own; name the run "
            "as --encoder to put another on it."
        )
    protocol.check(dataset)
    with ranks().first_here():
        bank = dataset.load(protocol.split)
    evaluator, shapes = _evaluator(protocol, dataset, bank, device), protocol.shapes(dataset)
    evaluator.progress, evaluator.frozen = progress, True
    train = _fitted_on(fit_data, dataset, encoders, bank)
    opened = _opened(encoders, runs, bank)
    asked = [(name, each) for name in encoders for each in encoder_learners(opened[name], name, bank, train, head)]
    asked += [
        (name, join_learners([_run_learner(part, bank, head) for part in opened[name]], name, head.votes))
        for name in runs
    ]
    learners: dict[str, Learner] = {}
    methods, short = {}, short_names([*encoders, *runs])
    for name, learner in asked:
        of = f"{learner.name} on " if len(head.names) > 1 and name in encoders else ""
        names = (of + short[name], of + name, f"run {of}{name}")  # an encoder and a run may be called alike
        method = next(each for each in names if each not in learners)
        learners[method] = learner
        _check_way(name, learner, shapes)
        methods[method] = describe(opened[name][0], len(opened[name]))
    if head.warps:
        _average_warps(learners, head)
    results = [r for method, learner in learners.items() for r in evaluator.measure(method, learner, shapes)]
    trained = {name: each[0] for name, each in opened.items() if len(each) == 1 and isinstance(each[0], Trained)}
    return Comparison.of(results, methods, unlike_seeds({short[name]: run for name, run in trained.items()}))


def _run_learner(run: str | Trained, bank: ImageBank, head: Head) -> Learner:
    """A run's own learner, or counterfactual supports by its prior."""
    if not head.counterfactual:
        return run_learner(run, bank, head.features)
    return counterfactual_learner(run, bank, head.factors, head.features)


def _evaluator(protocol: Protocol, dataset: Dataset, bank: ImageBank, device: Device | None) -> Evaluator:
    """The evaluator of a protocol's episodes.

    Raises:
        InputError: if the images cannot give them, or the data set prescribes others.
    """
    prescribed = dataset.fixed_episodes(bank)
    if prescribed is not None and protocol.within is not None:
        raise InputError(f"{bank.dataset} prescribes its episodes; leave out --within.")
    own = [name for name in ("query", "episodes", "seed") if getattr(protocol, name) != getattr(Protocol(), name)]
    if prescribed is not None and own:
        raise InputError(f"{bank.dataset} prescribes its episodes; leave out --{own[0]}.")
    shapes = protocol.shapes(dataset)
    drawn = Episodes(
        EpisodeShape(*shapes[0], protocol.query),
        protocol.seed,
        protocol.split,
        rotations=dataset.rotations == "episode",
        within=protocol.within,
        fixed=FixedEpisodes(prescribed) if prescribed is not None else None,
    )
    evaluator = Evaluator(bank, drawn, protocol.episodes, device, protocol.unit)
    for way, shot in shapes:
        evaluator.check(way, shot)
    return evaluator


def _fitted_on(fit_data: Dataset | None, dataset: Dataset, encoders: Sequence[str], bank: ImageBank) -> ImageBank:
    """The training images that the controls among the encoders are fitted on; ``bank`` where none is."""
    fitted = fitted_controls(part for name in encoders for part in parts(name))
    if not fitted:
        if fit_data is not None:
            raise InputError("--fit_data is what pca and random are fitted on, and neither is asked for; leave it out.")
        return bank
    with ranks().first_here():
        train = fit_data.load("train") if fit_data is not None else _own_training_images(dataset, fitted[0])
    if train.image_shape != bank.image_shape or train.polarity != bank.polarity:
        raise InputError(
            f"the controls would be fitted on {train.dataset} ({train.image_shape}, {train.polarity}) and measured on "
            f"{bank.dataset} ({bank.image_shape}, {bank.polarity}); choose fit_data of the same kind of pictures."
        )
    return train


def _own_training_images(dataset: Dataset, control: str) -> ImageBank:
    try:
        return dataset.load("train")
    except InputError as error:
        raise InputError(
            f"the control {control!r} is fitted on training images, and there are none: {error} Name a data set of the "
            f"same kind of images for that, such as --fit_data glyphs, or leave {control!r} out."
        ) from error


def _opened(encoders: Sequence[str], runs: Sequence[str], bank: ImageBank) -> Opened:
    """Every part of every method, each opened once.

    Raises:
        InputError: if one cannot be opened, or was trained on classes of ``bank``.
    """
    for folder in (folder for name in runs for folder in parts(name)):
        if not (expanded(folder) / "config.yaml").is_file():
            raise InputError(f"{folder} is no run folder: it has no config.yaml.")
    opened: Opened = {
        name: [part if part in CONTROLS else zoo.open(part) for part in parts(name)] for name in (*encoders, *runs)
    }
    for run in (run for name in runs for run in opened[name]):
        _ = zoo.open(run).config  # says so if it is no run folder
    for part in (part for each in opened.values() for part in each):
        refuse_trained_classes(part, bank)
    return opened


def _check_way(name: str, learner: Learner, shapes: Sequence[tuple[int, int]]) -> None:
    """Raises `InputError` if a learner with a head of fixed ways is to be measured at others."""
    if learner.way is not None and {way for way, _ in shapes} != {learner.way}:
        raise InputError(
            f"the run {name} trained the learner '{learner.name}' with a head of {learner.way} ways; ask for "
            f"--way {learner.way}."
        )


def _average_warps(learners: dict[str, Learner], head: Head) -> None:
    """Lets every learner see each image's features averaged with those of warped copies."""
    averaged: dict[nn.Module, nn.Module] = {}  # learners on one encoder keep one encoder
    for method, learner in learners.items():
        if not isinstance(learner, FeatureLearner):
            raise InputError(f"the learner '{learner.name}' of {method} has no features to average; leave out warps.")
        average = WarpAverage(learner.encoder, head.warps, mirror=head.mirror)
        learner.encoder = averaged.setdefault(learner.encoder, average)
