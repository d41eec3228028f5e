"""Criteria that choose among runs without a label, and how far the runs agree."""

from __future__ import annotations

from typing import Any

from episodes import InputError
from metagvae.report.material import Material
from metagvae.report.section import LeftOut, readable
from metagvae.studies.selection import CRITERIA, select

GROUPS, IMAGES = 60, 16  # of ModelCentrality; `metagvae select` draws more


def selection_content(runs: list[Material]) -> dict[str, Any]:
    """For the template: each criterion of each run, its pick, and the matrix of agreement.

    Raises:
        LeftOut: if fewer than two runs have a decoder, or they take other images.
    """
    able, missing = [], []
    for run in runs:
        try:
            able.append((run.vae, run)[1])
        except LeftOut as reason:
            missing.append(f"{readable(run.name)}: {reason}")
    if len(able) < 2:
        raise LeftOut(" ".join(["The criteria compare two decoders or more.", *missing]))
    runs = able
    try:
        found = select(
            [str(run.folder) for run in runs], runs[0].bank.to("cpu"), GROUPS, IMAGES, device=runs[0].evaluator.device
        )
    except InputError as reason:
        raise LeftOut(str(reason)) from reason
    rows = found.plain()
    picks = {CRITERIA[by][0]: found.best(by) for by in CRITERIA if found.tells(by)}
    columns = [name for name in rows[0] if name != "run"]
    corrected = found.agreement.corrected
    return {
        "columns": columns,
        "rows": [
            {
                "run": readable(run.name),
                "cells": [{"value": row[name], "best": picks.get(name) == place} for name in columns],
                "agreement": [
                    {"value": f"{100 * value:.0f}", "shade": round(max(0.0, float(value)), 2)} for value in line
                ],
            }
            for place, (run, row, line) in enumerate(zip(runs, rows, corrected, strict=True))
        ],
        "cannot_tell": found.cannot_tell,
        "missing": missing,
    }
