"""The result table: the runs against the controls on the same episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metagvae.encoders.controls import CONTROLS
from metagvae.evaluation.class_interval import percent
from metagvae.evaluation.results import PairedDifference, Result, legend
from metagvae.report.images import Inline, chart
from metagvae.report.section import LeftOut, readable
from metagvae.studies.comparison import Comparison


def shown(method: str) -> str:
    """A method's name as the page has it."""
    return CONTROLS[method].label if method in CONTROLS else readable(method)


def _difference(difference: PairedDifference | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    text = percent(difference.difference, difference.half_width, difference.over_classes, sign="+")
    return {"text": text.replace("-", "−"), "mark": difference.mark()}


def _bars(results: Sequence[Result], shapes: Sequence[tuple[int, int]]) -> list[Inline]:
    """An error bar chart per shape."""
    from matplotlib.figure import Figure

    charts = []
    for way, shot in shapes:
        here = [r for r in results if (r.way, r.shot) == (way, shot)]
        figure = Figure(figsize=(4.6, 0.9 + 0.3 * len(here)), layout="constrained")
        axes = figure.subplots()
        colours = ["#b9bfc9" if r.method in CONTROLS else "#2f5d9b" for r in here]
        widths = [100 * r.half_width for r in here]
        axes.barh(range(len(here)), [100 * r.error for r in here], xerr=widths, color=colours, capsize=2)
        # a name is drawn as it is: mathtext would read dollar signs in it
        axes.set_yticks(range(len(here)), [readable(shown(r.method), 32) for r in here], parse_math=False)
        axes.invert_yaxis()
        axes.set_xlabel(f"error, %: {way}-way {shot}-shot")
        axes.spines[["top", "right"]].set_visible(False)
        values = "; ".join(f"{shown(r.method)} {percent(r.error, r.half_width, r.over_classes)} %" for r in here)
        charts.append(chart(figure, f"Bars of the {way}-way {shot}-shot error with 95 % intervals: {values}."))
    return charts


def results_content(comparison: Comparison, note: str = "") -> dict[str, Any]:
    """For the template: rows of errors, each with its paired difference from the first method.

    Raises:
        LeftOut: if nothing was measured.
    """
    results = comparison.results
    if not results:
        raise LeftOut("Nothing was measured.")
    shapes = sorted({(r.way, r.shot) for r in results})
    cells = {(r.method, r.way, r.shot): r for r in results}
    gaps = {(d.other, d.way, d.shot): d for d in comparison.differences}
    methods = list(dict.fromkeys(r.method for r in results))
    rows = []
    for method in methods:
        norm = next(r for r in results if r.method == method)
        rows.append(
            {
                "method": shown(method),
                "control": method in CONTROLS,
                "norm": norm.norm + (", transductive" if norm.transductive else ""),
                "cells": [
                    {
                        "error": percent(found.error, found.half_width, found.over_classes) if found else "–",
                        "difference": _difference(gaps.get((method, *shape))),
                    }
                    for shape in shapes
                    for found in [cells.get((method, *shape))]
                ],
            }
        )
    first = results[0]
    return {
        "shapes": [f"{way}-way {shot}-shot" for way, shot in shapes],
        "rows": rows,
        "baseline": shown(methods[0]),
        "charts": _bars(results, shapes),
        "spreads": [
            f"{shown(s.method)}, {s.way}-way {s.shot}-shot: {100 * s.error:.2f}, sd {100 * s.deviation:.2f}"
            for s in comparison.spreads
        ],
        "data": f"{readable(first.dataset)}, {first.split} split {first.split_hash}",
        "drawn": f"{first.episodes} episodes of {first.query} queries per class, seed {first.seed}",
        "precision": first.precision,
        "legend": legend(results).splitlines(),
        "note": note,
    }
