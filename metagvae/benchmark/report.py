"""The benchmark's table and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metagvae.benchmark.rows import Row
from metagvae.evaluation.text_table import text_table
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

SIGNS = {"faster": "≥", "of it": "≤", "seconds": "≤"}


def number(value: float | None) -> str:
    """Three figures, thousands grouped."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


@dataclass
class Report:
    """Every row, and what they were measured on."""

    rows: Sequence[Row]
    host: dict[str, Any]
    seconds: float

    def limit(self, row: Row) -> str:
        """How much of the machine's ceiling ours uses."""
        if row.load is None:
            return ""
        rate, name = row.load
        unit = "GB/s" if name == "copy" else "GFLOP/s"
        ceiling = next((r.ours for r in self.rows if r.group == "ceilings" and r.name == name), None)
        text = f"{number(rate / 1e9)} {unit}"
        return f"{text}, {100 * rate / 1e9 / ceiling:.0f} % of {name}" if ceiling else text

    def cells(self, row: Row) -> dict[str, str]:
        """A row as the table shows it."""
        ratio = "–"
        if row.ratio is not None and row.low is not None and row.high is not None:
            ratio = number(row.ratio)
            if row.low != row.high:
                ratio += f" ({number(row.low)}–{number(row.high)})"
        target = f"{SIGNS[row.sense]} {number(row.wanted)}{' s' if row.sense == 'seconds' else ''}"
        reached = {True: ", reached", False: ", not reached", None: ""}[row.reached]
        return {
            "row": row.name,
            "baseline": row.peer or "–",
            "ours": f"{number(row.ours)} {row.unit}" if row.ours is not None else "–",
            "baseline's": f"{number(row.theirs)} {row.unit}" if row.theirs is not None else "–",
            "ratio": ratio,
            "target": target + reached if row.wanted is not None else "–",
            "limit": self.limit(row) or "–",
            "note": row.note or "–",
        }

    def table(self) -> str:
        """Plain text: a line per row, its note below it."""
        cells = [self.cells(row) for row in self.rows]
        columns = ["row", "baseline", "ours", "baseline's", "ratio", "target", "limit"]
        lines = [columns, *([line[name] for name in columns] for line in cells)]
        text = text_table(lines, rule=True).split("\n")
        notes = [f"      {line['note']}" if line["note"] != "–" else "" for line in cells]
        body = [part for line, note in zip(text[2:], notes, strict=True) for part in (line, note) if part]
        return "\n".join([*text[:2], *body, "", self.about()])

    def about(self) -> str:
        """One sentence on the machine and how to read the ratios."""
        host = self.host
        versions = ", ".join(f"{name} {number or 'missing'}" for name, number in host["versions"].items())
        threads = f"{host['threads']} thread{'s' if host['threads'] != 1 else ''}"
        return (
            f"{host['device']}; {host['cores']} cores, {threads}, {host['precision']}; {versions}; "
            f"load before {host['load']}; {host['clock']}. Medians of samples taken by turns; in brackets the least "
            f"and the largest ratio. {self.seconds:.0f} s in all."
        )

    def save(self, path: Path) -> None:
        """``groups`` of rows as the documentation's tables show them, ``measurements`` in full."""
        write_json(
            path,
            {
                "groups": {
                    group: [self.cells(row) for row in self.rows if row.group == group]
                    for group in dict.fromkeys(row.group for row in self.rows)
                },
                "measurements": [row.to_dict() for row in self.rows],
                "host": self.host,
                "about": self.about(),
                "provenance": provenance(),
            },
        )
