"""MAML's runs on the same episodes: a row for each, those that differ in their seed together.

What a run made of a shape's episodes is kept in its folder and not measured again, so that long measurements can be
made a shape at a time. The runs are those of omniglot-maml-cures and omniglot-maml-guided in experiments/plan.yaml.

python experiments/maml.py --run RUN ... --way 5 20 --shot 1 5 --kept --json experiments/results/maml.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from episodes import Episodes, EpisodeShape
from episodes.untrusted.plain_files import read_json
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.config.sections import DataConfig
from metagvae.evaluation.class_interval import ClassJackknife, percent
from metagvae.evaluation.evaluator import Evaluator
from metagvae.evaluation.over_seeds import by_method, spreads_over_seeds, stem
from metagvae.evaluation.results import Result
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json


def file(run: str, shape: tuple[int, int], split: str, episodes: int, query: int) -> Path:
    """Where what is measured of a run is kept."""
    way, shot = shape
    return Path(run) / f"errors-{split}-{way}way-{shot}shot-{query}-{episodes}.json"


def measured(run: str, shape: tuple[int, int], split: str, episodes: int, query: int) -> Result:
    """A run's result on the split's first episodes of a shape, out of its folder where that is known."""
    way, shot = shape
    kept = file(run, shape, split, episodes, query)
    if kept.exists():
        content: dict[str, Any] = read_json(kept, "what was measured of a run")
        errors, classes = np.array(content.pop("per_episode")), content.pop("classes")
        classes["without"] = np.array(classes["without"])
        return Result(**content, per_episode=errors, classes=ClassJackknife(**classes))
    opened = zoo.open(run)
    data = DataConfig(**{**opened.config["data"], "root": None, "rotations": "episode"}).make()
    drawn = Episodes(EpisodeShape(way, shot, query), 0, split, rotations=True)
    evaluator = Evaluator(data.load(split), drawn, episodes, Device.choose("cpu", "float32"))
    (result,) = evaluator.measure(Path(run).name, opened.learner().eval(), [shape])
    assert result.classes is not None
    known = {**vars(result), "per_episode": result.per_episode.tolist()}
    write_json(kept, {**known, "classes": {**vars(result.classes), "without": result.classes.without.tolist()}})
    return result


def row(stem_name: str, runs: list[str], results: list[Result], shapes: list[tuple[int, int]]) -> dict[str, str]:
    """A line of the table; a shape of which some runs are not measured says how many are."""
    methods = by_method(results)
    spread = {(s.way, s.shot): s.deviation for s in spreads_over_seeds(methods)}
    cards = [zoo.open(run).card for run in runs]
    first = methods[0].result
    made = {
        "learner": stem_name + (f" ({len(runs)} seeds)" if len(runs) > 1 else ""),
        "norm": first.norm,
        "setting": "transductive" if first.transductive else "inductive",
    }
    made.update({f"{way}w {shot}s": "–" for way, shot in shapes})
    for method in methods:
        r, key = method.result, (method.result.way, method.result.shot)
        text = percent(r.error, r.half_width, r.over_classes)
        known = sum((one.way, one.shot) == key for one in results)
        text += f" (sd {100 * spread[key]:.2f})" if key in spread else ""
        made[f"{key[0]}w {key[1]}s"] = text + (f" ({known} of {len(runs)} seeds)" if known < len(runs) else "")
    logs = [[line["seconds"] for line in read_metrics(Path(run)) if "seconds" in line] for run in runs]
    seconds = [log[-1] for log in logs]
    made["training"] = f"{cards[0].method.rpartition(' of ')[2]} steps, {np.mean(seconds) / 60:.1f} min"
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", nargs="+", required=True)
    parser.add_argument("--way", type=int, nargs="+", default=[5])
    parser.add_argument("--shot", type=int, nargs="+", default=[1])
    parser.add_argument("--query", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--split", default="test")
    parser.add_argument("--kept", action="store_true", help="measure nothing, show what is known")
    parser.add_argument("--json", type=Path, help="file to write the rows to; none measures alone")
    asked = parser.parse_args()
    made = provenance()
    shapes = [(way, shot) for way in asked.way for shot in asked.shot]
    stems: dict[str, list[str]] = {}
    for run in asked.run:
        stems.setdefault(stem(Path(run).name), []).append(run)
    rows = []
    for name, runs in stems.items():
        asks = [(run, shape, asked.split, asked.episodes, asked.query) for shape in shapes for run in runs]
        results = [measured(*ask) for ask in asks if not asked.kept or file(*ask).exists()]
        rows.append(row(name, runs, results, shapes))
        print(rows[-1], flush=True)
    if asked.json:
        about = (
            f"omniglot-vinyals, {asked.split} split, {asked.episodes:,} episodes of {asked.query} queries per class, "
            "seed 0, a quarter turn drawn for each class; error in %, ± the 95 % interval over episodes, [that over "
            "alphabets], sd over training seeds. Training on one core, that of the start left out."
        )
        write_json(asked.json, {"provenance": made, "about": about, "rows": rows})


if __name__ == "__main__":
    main()
