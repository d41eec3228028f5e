"""The figures of `metagvae identify`: a curve over rows, and correlations of units with warps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metagvae.report.figure_files import plain, save_figure
from metagvae.studies.identify import Finding
from metagvae.studies.warp_units import WarpUnits


def identifiability_curve(findings: Sequence[Finding], path: Path) -> None:
    """Correlation with the sources against the number of rows: the chosen code, each width, and the controls."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), dpi=120, layout="constrained")
    axis = figure.subplots()
    rows = sorted({finding.rows for finding in findings})
    of = {count: [finding for finding in findings if finding.rows == count] for count in rows}
    for finding in findings:
        axis.scatter(finding.rows, finding.mcc, color="C0", s=14, alpha=0.5)
    widths = sorted({width for finding in findings for width, _, _ in finding.by_width})

    def means(pick: object) -> list[float]:
        return [float(np.mean([pick(finding) for finding in of[count]])) for count in rows]  # type: ignore[operator]

    axis.plot(rows, means(lambda one: one.mcc), "o-", color="C0", label="chosen by held-out contrast")
    for number, width in enumerate(widths if len(widths) > 1 else []):
        line = means(lambda one, width=width: next(score for w, score, _ in one.by_width if w == width))
        axis.plot(rows, line, ":", color=f"C{number + 1}", label=f"width {width}")
    for style, name, label in (
        ("--", "fast_ica", "FastICA"),
        ("-.", "untrained", "untrained network"),
        ((0, (1, 4)), "shuffled", "segments shuffled"),
    ):
        axis.plot(rows, means(lambda one, name=name: getattr(one, name)), linestyle=style, color="grey", label=label)
    axis.set_xscale("log")
    axis.set_xticks(rows, [f"{count:,}" for count in rows])
    axis.set_xticks([], minor=True)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("rows to learn from")
    axis.set_ylabel("mean correlation with the sources")
    axis.legend(fontsize=7)
    save_figure(figure, path)


def warp_correlations(found: Sequence[WarpUnits], path: Path) -> None:
    """A square for each unit and warp parameter, dark where they correlate; the matched units are framed."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(1.2 + 3.2 * len(found), 3.6), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, one in zip(axes, found, strict=True):
        shown = axis.imshow(one.every, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        for column, unit in enumerate(one.places.values()):
            if unit >= 0:
                axis.add_patch(Rectangle((column - 0.5, unit - 0.5), 1, 1, fill=False, edgecolor="C1", linewidth=1.5))
        axis.set_xticks(range(len(one.each)), list(one.each), rotation=90, fontsize=8)
        axis.set_yticks(range(len(one.every)))
        axis.tick_params(length=0, labelsize=7)
        axis.set_title(f"{plain(one.name)}\nMCC {one.score:.3f}", fontsize=9)
        axis.set_ylabel(f"units of {one.units}", fontsize=8)
    figure.colorbar(shown, ax=list(axes), label="|correlation|")
    save_figure(figure, path)
