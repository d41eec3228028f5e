"""`metagvae fit-check`'s page: one HTML file, nothing in it but text and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from episodes.whole_files import write_beside
from metagvae.classifier.pictures import Pictures
from metagvae.report.images import Inline, chart, strip
from metagvae.report.page import render
from metagvae.report.section import Section, readable
from metagvae.studies.fit_check import FitCheck

PAIRS, IMAGES, MOST = 10, 6, 30  # of confused classes, images of a class, suspects and copies


def _curve(check: FitCheck) -> Inline:
    from matplotlib.figure import Figure

    curve = check.curve
    figure = Figure(figsize=(5.2, 3.0), dpi=96)
    axis = figure.subplots()
    axis.plot(
        list(curve.points), [100 * error for error in curve.points.values()], "o-", color="#4C72B0", label="measured"
    )
    for forecast, name, colour in ((curve.now, "now", "#4C72B0"), (curve.doubled, "predicted", "#C44E52")):
        ends = [[100 * max(forecast.error - forecast.low, 0)], [100 * max(forecast.high - forecast.error, 0)]]
        axis.errorbar([forecast.shot], [100 * forecast.error], ends, fmt="s", capsize=4, color=colour, label=name)
    axis.set_xlabel("images a class")
    axis.set_ylabel("error, %")
    axis.set_ylim(bottom=0)
    axis.legend()
    figure.tight_layout()
    points = ", ".join(f"{shot}: {100 * error:.1f} %" for shot, error in curve.points.items())
    return chart(figure, f"Error over images a class. {points}.")


def _images(check: FitCheck) -> Tensor:
    pictures: Pictures = check.examples.images
    return pictures.on(check.classifier.scale_)


def write_fit_check(check: FitCheck, folder: str | Path, path: Path) -> Path:
    """Writes the page and returns its path."""
    images, names, files = _images(check), [readable(name) for name in check.classes], check.examples.files
    labels = check.classifier.labels_

    def shown(rows: list[int], alt: str) -> Inline:
        return strip(images[rows], alt)

    def own(number: int) -> Inline:
        return shown(np.flatnonzero(labels == number)[:IMAGES].tolist(), f"Examples of {names[number]}.")

    pairs = [
        {
            "one": names[truth],
            "other": names[taken],
            "count": len(rows),
            "rows": shown(rows[:IMAGES], f"{names[truth]} taken for {names[taken]}."),
            "others": own(taken),
        }
        for truth, taken, rows in check.confusions[:PAIRS]
    ]
    suspects = [
        {
            "file": readable(files[one.row]),
            "image": shown([one.row], readable(files[one.row])),
            "label": names[int(labels[one.row])],
            "taken": names[one.taken],
            "share": f"{100 * one.probability:.0f}",
        }
        for one in check.suspects[:MOST]
    ]
    copies = [
        {
            "one": readable(files[a]),
            "other": readable(files[b]),
            "image": shown([a, b], "Two examples that show the same."),
        }
        for a, b in check.copies[:MOST]
    ]
    counts = np.bincount(labels)
    chosen = getattr(check.classifier, "choice_", None)
    about: dict[str, Any] = {
        "kinds": [],
        "command": "metagvae fit-check",
        "data": f"{readable(folder)}: {len(names)} classes of {counts.min()} to {counts.max()} images, encoder "
        f"{readable(check.classifier.source)}",
        "headlines": [
            {
                "shape": f"error with {one.shot} images a class{', predicted' if one is check.curve.doubled else ''}",
                "error": f"{100 * one.error:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]",
            }
            for one in (check.curve.now, check.curve.doubled)
        ],
    }
    sections = [
        Section("fit-error", "Error, and what twice the images would bring", "fit-error.html",
                {"curve": _curve(check), "now": check.curve.now, "after": check.curve.doubled,
                 "seen": [readable(name) for name in check.seen],
                 "choice": readable(chosen.sentence(), 600) if chosen else ""}),
        Section("fit-confused", "Classes taken for each other", "fit-confused.html", {"pairs": pairs},
                "" if pairs else "No example was put into another class."),
        Section("fit-suspects", "Labels that may be wrong", "fit-suspects.html", {"suspects": suspects},
                "" if suspects else "The others are sure of another class for none of the examples."),
        Section("fit-copies", "Images that are there twice", "fit-copies.html", {"copies": copies},
                "" if copies else "No two examples show the same."),
    ]  # fmt: skip
    write_beside(path, render(readable(Path(folder).name or folder), about, sections).encode("utf-8", "replace"))
    return path
