"""The pairs of classes that are most often taken for each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from episodes import to_float
from metagvae.report.images import strip
from metagvae.report.material import Answers, Material
from metagvae.report.section import LeftOut, readable
from metagvae.runs.class_families import plain_names

PAIRS, EXAMPLES = 10, 4


def confused_pairs(answers: Answers, classes: int) -> list[tuple[int, int, int, int]]:
    """Pairs of class numbers with mistakes between them, the worst first, each with mistakes and chances for them.

    A chance is a query of the one class in an episode that has the other too. Pairs are ordered by the lower end
    of the 95 % interval of mistakes over chances (Wilson), so that one bad episode does not outweigh many.
    """
    drawn, ways = answers.drawn.classes.cpu(), answers.ways
    way, queries = ways.shape[1:]
    first, second = torch.triu_indices(way, way, 1)
    low, high = (f(drawn[:, first], drawn[:, second]).flatten() for f in (torch.minimum, torch.maximum))
    met, times = np.unique((low * classes + high).numpy(), return_counts=True)
    said = drawn.gather(1, ways.flatten(1)).view_as(ways)
    true = drawn[:, :, None].expand_as(ways)
    wrong = said != true
    low, high = torch.minimum(said[wrong], true[wrong]), torch.maximum(said[wrong], true[wrong])
    pairs, mistakes = np.unique((low * classes + high).numpy(), return_counts=True)
    chances = 2 * queries * times[np.searchsorted(met, pairs)]
    share, z = mistakes / chances, 1.96
    middle = share + z * z / (2 * chances)
    spread = z * np.sqrt(share * (1 - share) / chances + z * z / (4 * chances**2))
    order = np.argsort(-(middle - spread) / (1 + z * z / chances), kind="stable")
    return [(*divmod(int(pairs[i]), classes), int(mistakes[i]), int(chances[i])) for i in order]


def between_turns(pairs: list[tuple[int, int, int, int]], names: Sequence[str]) -> float:
    """The share of all mistakes that are between quarter turns of one character."""
    one = [mistakes for a, b, mistakes, _ in pairs if len(plain_names((names[a], names[b]))) == 1]
    return sum(one) / sum(mistakes for _, _, mistakes, _ in pairs)


def confusions_content(run: Material) -> dict[str, Any]:
    """For the template: the worst pairs with pictures of each.

    Raises:
        LeftOut: if the run was trained on these classes, or made no mistake.
    """
    bank = run.bank
    found = confused_pairs(run.answers, bank.num_classes)
    if not found:
        raise LeftOut(f"There was no mistake in {len(run.answers.ways)} episodes.")

    def side(number: int) -> dict[str, Any]:
        start, end = int(bank.offsets[number]), int(bank.offsets[number + 1])
        name = readable(bank.class_names[number])
        return {"name": name, "image": strip(to_float(bank.images[start : min(end, start + EXAMPLES)]), f"{name}.")}

    return {
        "pairs": [
            {
                "one": side(a),
                "other": side(b),
                "mistakes": mistakes,
                "chances": chances,
                "share": f"{100 * mistakes / chances:.0f}",
            }
            for a, b, mistakes, chances in found[:PAIRS]
        ],
        "total": len(found),
        "episodes": len(run.answers.ways),
        "turns": f"{100 * between_turns(found, bank.class_names):.1f}"
        if len(plain_names(bank.class_names)) < bank.num_classes
        else None,
    }
