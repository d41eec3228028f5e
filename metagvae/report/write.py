"""The work of `metagvae report`: measures runs, fills the sections, writes the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from episodes import Episodes, EpisodeShape, ImageBank, InputError
from episodes.datasets import Dataset
from episodes.paths import all_different, expanded
from episodes.samplers.prescribed import FixedEpisodes
from episodes.tokens import TEXT
from episodes.whole_files import write_beside
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.encoders.controls import CONTROLS, controls_of
from metagvae.encoders.sparse import SparseEncoder
from metagvae.evaluation.class_interval import percent
from metagvae.evaluation.evaluator import Evaluator
from metagvae.report.atoms import atoms_content
from metagvae.report.comparison import disagreements_content, maps_content, rebuilt_content, scores_content
from metagvae.report.confusions import confusions_content
from metagvae.report.counterfactuals import counterfactuals_content
from metagvae.report.curves import curves_content
from metagvae.report.deformable import deformable_content
from metagvae.report.drawn import drawn_content
from metagvae.report.embedding import embedding_content
from metagvae.report.episodes import episodes_content
from metagvae.report.material import Material
from metagvae.report.matrix import matrix_content
from metagvae.report.page import render
from metagvae.report.provenance import provenance_content
from metagvae.report.reconstructions import reconstructions_content
from metagvae.report.results import results_content, shown
from metagvae.report.section import LeftOut, Section, readable
from metagvae.report.selection import selection_content
from metagvae.report.shape import Shape, choose_shape
from metagvae.report.traversal import traversal_content
from metagvae.runs.run import read_config
from metagvae.studies.compare import compare
from metagvae.studies.comparison import Comparison
from metagvae.studies.measured_data import choose_dataset
from metagvae.studies.methods import run_learner
from metagvae.studies.protocol import Protocol

MAX_BYTES = 5_000_000
MAX_RUNS = 8  # side by side on a page of that size


def _section(anchor: str, title: str, content: Callable[[], dict[str, Any]]) -> Section:
    try:
        return Section(anchor, title, f"{anchor}.html", content())
    except LeftOut as reason:
        return Section(anchor, title, "", left_out=str(reason))


def _measured(dataset: Dataset, runs: Sequence[Material], shape: Shape, split: str) -> Comparison:
    """Runs and controls on the same episodes; paired differences are from the first run.

    Raises:
        LeftOut: if every run was trained on these classes.
    """
    able = [run for run in runs if not run.refused]
    if not able:
        raise LeftOut(runs[0].refused)
    evaluator = able[0].evaluator
    found = compare(
        dataset,
        encoders=controls_of(evaluator.bank),
        runs=[str(run.folder) for run in able],
        protocol=Protocol([shape.way], shape.shots, shape.query, evaluator.count, evaluator.drawn.seed, split),
        device=evaluator.device,
    )
    # stable: runs in their order, then controls in theirs
    return Comparison.of(sorted(found.single, key=lambda result: result.method in CONTROLS), found.methods)


def _materials(
    runs: Sequence[str],
    bank: ImageBank,
    dataset: Dataset,
    device: Device,
    asked: dict[str, Any],
    episodes: int,
    seed: int,
    split: str,
) -> list[Material]:
    opened = [zoo.open(run) for run in runs]
    learners = [run_learner(run, bank, None) for run in opened]
    prescribed = dataset.fixed_episodes(bank)
    fixed = FixedEpisodes(prescribed) if prescribed is not None else None
    own = next((learner.way for learner in learners if learner.way is not None), None)
    shape = choose_shape(bank.counts, **asked, learners_way=own, prescribed=dataset.prescribed if fixed else None)
    first = EpisodeShape(shape.way, shape.shots[0], shape.query)
    drawn = Episodes(first, seed, split, dataset.rotations == "episode", fixed=fixed)
    evaluator = Evaluator(bank, drawn, episodes, device)
    for shot in shape.shots:
        evaluator.check(shape.way, shot)
    made = [Material(run, learner, evaluator, shape) for run, learner in zip(opened, learners, strict=True)]
    if len({run.name for run in made}) < len(made):  # of folders that are called alike, all of their paths
        for run in made:
            run.name = str(run.folder)
    return made


def _one_run(run: Material, results: Section) -> list[Section]:
    sparse = isinstance(run.learner.encoder, SparseEncoder)
    atoms = [_section("atoms", "Atoms", lambda: atoms_content(run))] if sparse else []
    return [
        results,
        _section("curves", "Learning curves", lambda: curves_content({run.name: run.metrics})),
        *atoms,
        _section("reconstructions", "Reconstructions", lambda: reconstructions_content(run)),
        _section("counterfactuals", "Counterfactual images", lambda: counterfactuals_content(run)),
        _section("deformable", "The deformable path", lambda: deformable_content(run)),
        _section("traversal", "Every latent unit", lambda: traversal_content(run)),
        _section("drawn", "Images drawn", lambda: drawn_content(run)),
        _section("matrix", "Disentanglement", lambda: matrix_content(run)),
        _section("embedding", "A map of test classes", lambda: embedding_content(run)),
        _section("episodes", "Ten episodes", lambda: episodes_content(run)),
        _section("confusions", "Most confused pairs", lambda: confusions_content(run)),
        _section("provenance", "Config, versions, command", lambda: provenance_content([run])),
    ]


def _several_runs(runs: list[Material], results: Section) -> list[Section]:
    return [
        results,
        _section("curves", "Learning curves", lambda: curves_content({run.name: run.metrics for run in runs})),
        _section("rebuilt", "Reconstructions side by side", lambda: rebuilt_content(runs)),
        _section("scores", "Disentanglement", lambda: scores_content(runs)),
        _section("selection", "Choosing without labels", lambda: selection_content(runs)),
        _section("maps", "Maps of the same test classes", lambda: maps_content(runs)),
        _section("disagreements", "Where they disagree", lambda: disagreements_content(runs)),
        _section("provenance", "Configs, versions, commands", lambda: provenance_content(runs)),
    ]


def _about(runs: list[Material], comparison: Comparison, data: str, bank: ImageBank) -> dict[str, Any]:
    """The page's head: what was trained, and of a single run its errors."""
    kinds = [
        {
            "name": readable(run.name),
            "kind": run.config["kind"],
            "method": readable(run.card.method, 300),
            "trained_on": readable(run.card.trained_on, 200),
        }
        for run in runs
    ]
    own = [r for r in comparison.results if r.method not in CONTROLS] if len(runs) == 1 else []
    headlines = [
        {
            "shape": f"{r.way}-way {r.shot}-shot error",
            "method": shown(r.method),
            "error": percent(r.error, r.half_width),
        }
        for r in own
    ]
    counts = f"{bank.num_classes} classes, {len(bank)} images"
    return {"kinds": kinds, "headlines": headlines, "data": f"{data}: {counts}"}


def write_report(
    runs: Sequence[str],
    out: str | Path | None = None,
    way: int | None = None,
    shots: Sequence[int] | None = None,
    query: int | None = None,
    episodes: int = 600,
    seed: int = 0,
    split: str = "test",
    device: Device | None = None,
) -> Path:
    """Writes one HTML file about a run, or comparing several, and returns its path.

    Args:
        runs: folders of finished pretraining and training runs; measured on the first one's data set.
        out: the file; None takes ``report.html`` in the run's folder, for several ``comparison.html`` here.
        way, shots, query: of the episodes; None takes 5, (1, 5) and 15, or what the data can give.
        episodes: how many of each shape.
        seed, split: of the episodes.

    Raises:
        InputError: if a folder is no finished run, the data cannot give such episodes, the runs take different
            pictures, or the page would be 5 MB or more.
    """
    path = report_path(runs, out)
    if not (1 <= len(runs) <= MAX_RUNS and all_different(runs)):
        raise InputError(
            f"a report is about 1 to {MAX_RUNS} runs, each named once; received {len(runs)}: {list(runs)}."
        )
    for run in runs:
        read_config(run)  # says so at once if it is no run
    device = device or Device.choose()
    dataset = choose_dataset(runs, None)
    bank = dataset.load(split)
    if bank.polarity == TEXT:
        raise InputError(
            f"a report is of images, and {runs[0]} is of texts; what it writes is in figures/texts.txt of its folder."
        )
    asked = {"way": way, "shots": shots, "query": query}
    made = _materials(runs, bank, dataset, device, asked, episodes, seed, split)
    shape = made[0].shape
    comparison = Comparison()

    def results() -> dict[str, Any]:
        nonlocal comparison
        comparison = _measured(dataset, made, shape, split)
        refused = [f"{readable(run.name)} is not in the table: {run.refused}" for run in made if run.refused]
        return results_content(comparison, " ".join(filter(None, [shape.note, *refused])))

    first = _section("results", "Results against the controls", results)
    sections = _one_run(made[0], first) if len(made) == 1 else _several_runs(made, first)
    about = _about(made, comparison, f"{readable(bank.dataset)}, {split} split", bank)
    names = [readable(run.name, 60) for run in made]
    page = render(names[0] if len(names) == 1 else " and ".join([", ".join(names[:-1]), names[-1]]), about, sections)
    data = page.encode("utf-8", "replace")
    if len(data) >= MAX_BYTES:
        raise InputError(
            f"the report of {', '.join(names)} would have {len(data):,} bytes; at most {MAX_BYTES:,} are written. Give "
            "fewer runs, or a smaller --query."
        )
    write_beside(path, data)
    return path


def report_path(runs: Sequence[str], out: str | Path | None = None) -> Path:
    """The file of a report: ``out``, ``report.html`` in a run's folder, or for several ``comparison.html`` here."""
    if out:
        return expanded(out)
    return expanded(runs[0]) / "report.html" if len(runs) == 1 else Path("comparison.html")
