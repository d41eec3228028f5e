"""Learning curves: the loss, its terms, and the error on validation classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metagvae.report.images import Inline, chart
from metagvae.report.section import LeftOut, readable

NOT_TERMS = ("step", "loss", "lr", "seconds", "validation_error", "skipped_steps")
Line = Sequence[tuple[float, float]]


def _series(lines: Sequence[Mapping[str, float]], name: str, factor: float = 1.0) -> Line:
    return [(line["step"], factor * line[name]) for line in lines if isinstance(line.get(name), int | float)]


def _plot(series: Mapping[str, Line], label: str, logarithmic: bool = False) -> Inline:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.subplots()
    for (name, points), style in zip(series.items(), ["-", "--", "-.", ":"] * len(series), strict=False):
        (line,) = axes.plot(*zip(*points, strict=True), style, linewidth=1.6, label="_")
        line.set_marker("o" if len(points) < 15 else "")
        line.set_markersize(3)
        line.set_label(f" {readable(name, 40)}")  # matplotlib hides labels that begin with a _
    if logarithmic and all(value > 0 for points in series.values() for _, value in points):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(label, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if len(series) > 1:
        for text in figure.legend(loc="outside lower center", ncols=1, fontsize=8, frameon=False).get_texts():
            text.set_parse_math(False)
    spoken = "; ".join(
        f"{readable(name, 40)} from {points[0][1]:.4g} at step {points[0][0]} to {points[-1][1]:.4g} at step "
        f"{points[-1][0]}, lowest {min(value for _, value in points):.4g}"
        for name, points in series.items()
    )
    return chart(figure, f"Curves of the {label} against steps: {spoken}.")


def curves_content(metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """For the template: charts of one run, or of several, their errors on the same axes.

    Args:
        metrics: lines of ``metrics.jsonl`` by the run's name.

    Raises:
        LeftOut: if no run has any.
    """
    losses = {name: series for name, lines in metrics.items() if (series := _series(lines, "loss"))}
    errors = {name: series for name, lines in metrics.items() if (series := _series(lines, "validation_error", 100))}
    if not losses and not errors:
        raise LeftOut("There is no metrics.jsonl with a loss in it.")
    if len(metrics) == 1:
        charts = [_plot(losses, "loss")] if losses else []
        (lines,) = metrics.values()
        names = dict.fromkeys(name for line in lines for name in line if name not in NOT_TERMS)
        terms = {name: series for name in names if (series := _series(lines, name))}
        if len(terms) > 1:
            charts.append(_plot(dict(list(terms.items())[:12]), "terms of the loss", logarithmic=True))
    else:  # losses of different runs are different sums: no axis fits two of them
        charts = [_plot({name: series}, f"loss of {readable(name, 24)}") for name, series in losses.items()]
    if errors:
        charts.append(_plot(errors, "validation error, %"))
    silent = [readable(name) for name in metrics if name not in errors]
    return {"charts": charts, "silent": silent, "several": len(metrics) > 1}
