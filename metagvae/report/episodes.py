"""The first test episodes: support, queries, and the mistakes marked."""

from __future__ import annotations

from typing import Any

from metagvae.report.images import strip
from metagvae.report.material import Material
from metagvae.report.section import readable

COUNT = 10
MOST = 1000  # pictures in all; of larger episodes the first queries of each class are shown


def _queries(numbers: list[int]) -> str:
    return f"{'query' if len(numbers) == 1 else 'queries'} {', '.join(map(str, numbers))}"


def episodes_content(run: Material, count: int = COUNT) -> dict[str, Any]:
    """For the template: per way of each episode its support, its queries, and what the mistakes were taken for.

    Raises:
        LeftOut: if the run was trained on these classes.
    """
    answers = run.answers
    batch, wrong = answers.pictures(min(count, len(answers.ways))), answers.wrong
    queries = max(1, min(batch.queries, MOST // (batch.tasks * batch.way) - batch.shot))
    names = [readable(name) for name in run.bank.class_names]
    episodes = []
    for task in range(batch.tasks):
        ways = []
        for way in range(batch.way):
            missed = wrong[task, way, :queries].tolist()
            taken: dict[int, list[int]] = {}
            for query in wrong[task, way, :queries].nonzero().flatten().tolist():
                taken.setdefault(int(answers.ways[task, way, query]) + 1, []).append(query + 1)
            label = f"class {way + 1}"
            marks = "; ".join(f"{_queries(numbers)} taken for class {other}" for other, numbers in taken.items())
            ways.append(
                {
                    "number": way + 1,
                    "name": names[int(batch.classes[task, way])],
                    "support": strip(batch.support[task, way], f"Support of {label}."),
                    "queries": strip(
                        batch.query[task, way, :queries], f"Queries of {label}; {marks or 'all right'}.", missed
                    ),
                    "taken": [(other, _queries(numbers)) for other, numbers in sorted(taken.items())],
                }
            )
        mistakes = int(wrong[task].sum())
        episodes.append({"number": task, "mistakes": mistakes, "queries": wrong[task].numel(), "ways": ways})
    return {
        "episodes": episodes,
        "shape": f"{batch.way}-way {batch.shot}-shot",
        "all": len(wrong),
        "shown": queries,
        "queries": batch.queries,
        "perfect": int((wrong.flatten(1).sum(1) == 0).sum()),
    }
