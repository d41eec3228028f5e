"""Sections of a page on several runs: the same pictures and episodes side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from metagvae.report.embedding import embedding_content
from metagvae.report.images import strip
from metagvae.report.material import Material
from metagvae.report.matrix import matrix_content
from metagvae.report.reconstructions import COUNT
from metagvae.report.section import LeftOut, readable

EPISODES = 5


def _each(runs: list[Material], content: Callable[[Material], Any]) -> tuple[list[tuple[str, Any]], list[str]]:
    """Each run's value, by name, and a sentence for each run without one.

    Raises:
        LeftOut: if none has.
    """
    found, missing = [], []
    for run in runs:
        try:
            found.append((readable(run.name), content(run)))
        except LeftOut as reason:
            missing.append(f"{readable(run.name)}: {reason}")
    if not found:
        raise LeftOut(" ".join(missing))
    return found, missing


@torch.no_grad()
def rebuilt_content(runs: list[Material]) -> dict[str, Any]:
    """For the template: the same pictures, and what each run's decoder makes of them."""
    found, missing = _each(runs, lambda run: run.vae.reconstruct(run.pictures(COUNT)))
    rows = [("images", strip(runs[0].pictures(COUNT), f"{COUNT} images of test classes."))]
    rows += [(name, strip(pictures, f"The same images as {name} rebuilds them.")) for name, pictures in found]
    return {"rows": rows, "missing": missing}


def scores_content(runs: list[Material]) -> dict[str, Any]:
    """For the template: disentanglement scores, a column per run."""
    found, missing = _each(runs, lambda run: matrix_content(run)["scores"])
    names = [name for name, _ in found[0][1]]
    rows = [(name, [scores[place][1] for _, scores in found]) for place, name in enumerate(names)]
    return {"runs": [run for run, _ in found], "rows": rows, "missing": missing}


def maps_content(runs: list[Material]) -> dict[str, Any]:
    """For the template: each run's map of the same classes."""
    found, missing = _each(runs, embedding_content)
    return {"maps": found, "missing": missing}


def disagreements_content(runs: list[Material]) -> dict[str, Any]:
    """For the template: the episodes in which the runs' mistakes differ most, with each run's answers."""
    found, missing = _each(runs, lambda run: run.answers)
    if len(found) < 2:
        raise LeftOut(" ".join([f"Only {found[0][0]} can be asked these episodes.", *missing]))
    mistakes = torch.stack([answers.wrong.flatten(1).sum(1) for _, answers in found])
    spread = mistakes.amax(0) - mistakes.amin(0)
    first, (way, queries) = found[0][1], found[0][1].ways.shape[1:]
    episodes = []
    for task in spread.argsort(descending=True, stable=True)[:EPISODES].tolist():
        batch = first.pictures(task + 1).tasks_from(task, 1)
        ways = [
            {
                "number": number + 1,
                "name": readable(runs[0].bank.class_names[int(batch.classes[0, number])]),
                "support": strip(batch.support[0, number], f"Support of class {number + 1}."),
                "answers": [
                    (
                        name,
                        strip(
                            batch.query[0, number],
                            f"Queries of class {number + 1} as {name} answers them: "
                            f"{int(answers.wrong[task, number].sum())} wrong.",
                            answers.wrong[task, number].tolist(),
                        ),
                    )
                    for name, answers in found
                ],
            }
            for number in range(way)
        ]
        counts = [(name, int(count)) for (name, _), count in zip(found, mistakes[:, task], strict=True)]
        episodes.append({"number": task, "counts": counts, "queries": way * queries, "ways": ways})
    return {"episodes": episodes, "runs": [name for name, _ in found], "missing": missing}
