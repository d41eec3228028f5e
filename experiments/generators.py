"""The paper's comparison side by side: one table and one figure from what `experiments/run.py` measured.

python experiments/generators.py mnist-generators

Reads experiments/results/EXPERIMENT-{sampling,likelihood,control,probe,fewshot}.json, as many as there are; writes
EXPERIMENT.json beside them and docs/images/EXPERIMENT.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from metagvae.evaluation.over_seeds import stem
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

PARTS = ("sampling", "likelihood", "control", "probe", "fewshot")
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
Seeds = Sequence[float]


def read(experiment: str, part: str) -> dict[str, Any]:
    """A measurement's content; empty where it was not made."""
    path = RESULTS / f"{experiment}-{part}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def by_arm(found: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values of runs named ARM-seedN, by arm, in the order of the seeds."""
    arms: dict[str, list[Any]] = {}
    for name in sorted(found):
        arms.setdefault(stem(name), []).append(found[name])
    return arms


def spread(values: Seeds, digits: int = 2) -> str:
    """Mean and standard deviation over seeds; a dash where nothing was measured."""
    if not values:
        return "–"
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} (sd {np.std(values, ddof=1):.{digits}f})" if len(values) > 1 else mean


def gap(values: Seeds, digits: int) -> str:
    """Mean of differences paired by seed, and the half width of its 95 % interval by Student's t."""
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return f"{np.mean(values):+.{digits}f} ± {half:.{digits}f}"


def likelihood_gap(own: Sequence[Seeds], plain: Sequence[Seeds]) -> tuple[float, float]:
    """Nats by which an arm's log p(x) exceeds the plain VAE's, and 1.96 standard errors over images; seeds averaged."""
    per_image = np.mean([np.subtract(a, b) for a, b in zip(own, plain, strict=True)], axis=0)
    return float(per_image.mean()), float(1.96 * per_image.std(ddof=1) / len(per_image) ** 0.5)


def least_rank(rows: Sequence[Mapping[str, Any]]) -> float:
    """Of the units that are named after a pose, or move it best, the least rank correlation."""
    return min(abs(row["rank"]) for row in rows)


def least(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """The least of a number over attributes."""
    return min(row[name] for row in rows)


def most_change(rows: Sequence[Mapping[str, Any]]) -> float:
    """The greatest share of images in which another attribute changes as one is set."""
    return max(share for row in rows for share in row["changes"].values())


def most_leak(rows: Sequence[Mapping[str, Any]]) -> float:
    """How far above chance a fresh adversary reads an attribute from the other units' means, the worst attribute."""
    return max(row["leak"] - row["chance"] for row in rows)


class Comparison:
    """Arms of one experiment; the first is the plain VAE that the others are compared with."""

    def __init__(self, experiment: str) -> None:
        self.samples = by_arm(read(experiment, "sampling").get("scores", {}))
        self.log_p = by_arm({run["run"]: run["log_p"] for run in read(experiment, "likelihood").get("runs", [])})
        control = read(experiment, "control").get("numbers", {})
        self.units, self.attributes = by_arm(control.get("units", {})), by_arm(control.get("attributes", {}))
        probes = [row for row in read(experiment, "probe").get("results", []) if row["classifier"] == "linear"]
        self.errors = by_arm({row["encoder"]: row["error"] for row in probes})
        shots = read(experiment, "fewshot").get("single_seeds", [])
        self.few_shot = by_arm({row["method"]: row["error"] for row in shots})
        self.arms = list(self.samples)
        plain = [arm for arm in self.arms if arm.endswith(("-plain", "-vae"))]
        self.arms.sort(key=lambda arm: arm not in plain)
        self.plain = self.arms[0]

    def of(self, arm: str, *path: str) -> list[float]:
        """A number of every seed's samples."""
        values = []
        for found in self.samples[arm]:
            for key in path:
                found = found[key]
            values.append(found)
        return values

    def less(self, arm: str, *path: str) -> list[float]:
        """The same less the plain VAE's of the same seed."""
        return [a - b for a, b in zip(self.of(arm, *path), self.of(self.plain, *path), strict=True)]

    def gap(self, arm: str, measure: str, against: str, digits: int) -> str:
        """How much greater a distance is than the plain VAE's: over seeds, or over images where there is one seed."""
        if len(self.samples[arm]) > 1:
            return gap(self.less(arm, measure, "value"), digits)
        found = self.samples[arm][0][against]
        return f"{found['value']:+.{digits}f} [{found['low']:+.{digits}f}, {found['high']:+.{digits}f}]"

    def row(self, arm: str) -> dict[str, str]:
        own = arm == self.plain
        cells = {
            "VAE": arm,
            "rebuilt, squared error": spread(self.of(arm, "rebuilt")),
            "log p(x), nats": spread([float(np.mean(seed)) for seed in self.log_p[arm]]) if arm in self.log_p else "–",
            "less plain's": "–",
            "Frechet distance": spread(self.of(arm, "frechet", "value")),
            "Frechet less plain's": "–" if own else self.gap(arm, "frechet", "against", 2),
            "kernel distance": spread(self.of(arm, "kernel", "value"), 3),
            "kernel less plain's": "–" if own else self.gap(arm, "kernel", "kernel_against", 3),
            "precision": spread(self.of(arm, "precision"), 3),
            "recall": spread(self.of(arm, "recall"), 3),
            "discriminator, %": spread([100 * value for value in self.of(arm, "discriminator")], 1),
        }
        if not own and arm in self.log_p:
            mean, half = likelihood_gap(self.log_p[arm], self.log_p[self.plain])
            cells["less plain's"] = f"{mean:+.2f} ± {half:.2f}"
        cells["least rank correlation of a unit"] = spread([least_rank(rows) for rows in self.units.get(arm, [])], 3)
        known = self.attributes.get(arm, [])
        cells["attribute set: least agreement, %"] = spread([100 * least(rows, "agrees") for rows in known], 1)
        cells["others: most change, %"] = spread([100 * most_change(rows) for rows in known], 1)
        cells["adversary above chance, at most, points"] = spread([100 * most_leak(rows) for rows in known], 1)
        cells["linear probe, error in %"] = spread([100 * error for error in self.errors.get(arm, [])])
        cells["Omniglot, 5 ways 1 shot, error in %"] = spread([100 * error for error in self.few_shot.get(arm, [])])
        return cells

    def draw(self, path: Path) -> None:
        """A panel per claim: rebuilding, log-likelihood, sampling, control, probe; a disc per arm, a dot per seed."""
        from matplotlib.figure import Figure

        panels = {
            "Rebuilt, squared error\n(lower is better)": {arm: self.of(arm, "rebuilt") for arm in self.arms},
            "Log-likelihood, nats\n(higher is better)": {
                arm: [float(np.mean(seed)) for seed in rows] for arm, rows in self.log_p.items()
            },
            "Frechet distance of samples\n(lower is better)": {
                arm: self.of(arm, "frechet", "value") for arm in self.arms
            },
            "Least rank correlation of\na unit with its pose (higher)": {
                arm: [least_rank(rows) for rows in found] for arm, found in self.units.items()
            },
            "Error of a linear probe, %\n(lower is better)": {
                arm: [100 * error for error in found] for arm, found in self.errors.items()
            },
            "Omniglot, 5 ways 1 shot,\nerror in % (lower is better)": {
                arm: [100 * error for error in found] for arm, found in self.few_shot.items()
            },
        }
        panels = {title: found for title, found in panels.items() if found}
        figure = Figure(figsize=(3.1 * len(panels), 3.0), dpi=110)
        colours = dict(zip(self.arms, ("#8C8C8C", "#DD8452", "#4C72B0", "#55A868", "#8172B3", "#C44E52"), strict=False))
        for axis, (title, found) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
            shown = [arm for arm in self.arms if arm in found]
            for place, arm in enumerate(shown):
                axis.plot(place, np.mean(found[arm]), "o", color=colours[arm], markersize=9)
                axis.plot([place] * len(found[arm]), found[arm], "k.", markersize=4)
            axis.set_xlim(-0.6, len(shown) - 0.4)
            axis.margins(y=0.25)
            axis.grid(axis="y", alpha=0.3)
            axis.set_title(title, fontsize=8)
            axis.set_xticks(range(len(shown)), [arm.split("-", 1)[1] for arm in shown], rotation=35, fontsize=7)
            axis.tick_params(axis="y", labelsize=7)
        figure.tight_layout()
        figure.savefig(path, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("experiment", help="of experiments/plan.yaml, such as mnist-generators")
    experiment = parser.parse_args().experiment
    comparison = Comparison(experiment)
    parts = {part: read(experiment, part) for part in PARTS}
    commits = sorted({content["provenance"]["commit"] for content in parts.values() if content})
    seeds = len(comparison.samples[comparison.plain])
    about = (
        (f"Mean and standard deviation over {seeds} training seeds. " if seeds > 1 else "One training seed. ")
        + "Of log p(x), the difference and 1.96 standard errors over images"
        + (", seeds averaged" if seeds > 1 else "")
        + "; of the distances, the difference paired by seed and its 95 % interval by "
        + ("Student's t over seeds" if seeds > 1 else "bootstrap over images")
        + f". Measured at commit {', '.join(commits)}."
    )
    rows = [comparison.row(arm) for arm in comparison.arms]
    empty = [name for name in rows[0] if all(row[name] == "–" for row in rows)]
    rows = [{name: cell for name, cell in row.items() if name not in empty} for row in rows]
    write_json(RESULTS / f"{experiment}.json", {"provenance": provenance(), "about": about, "rows": rows})
    comparison.draw(ROOT / "docs" / "images" / f"{experiment}.png")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
