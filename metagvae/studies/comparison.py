"""Results of several methods on the same episodes, joined over training seeds and paired: a table, or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from metagvae.evaluation.class_interval import percent
from metagvae.evaluation.over_seeds import (
    SeedReduction,
    SeedSpread,
    by_method,
    paired_over_seeds,
    seed_reductions,
    spreads_over_seeds,
)
from metagvae.evaluation.results import PairedDifference, Result, format_table, legend
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json


@dataclass
class Comparison:
    """Results in the order the methods were named, and each method's paired difference from the first.

    Attributes:
        results: one per method, data set and shape, training seeds joined.
        single: the results before joining.
        spreads: over training seeds.
        reductions: of each method's error against that of every method named before it, over training seeds.
        notes: what of these could not be, and why; in what seeds of one method differ beside the seed.
        methods: what each method is: the encoder's card, and the seconds its training took.
    """

    results: list[Result] = field(default_factory=list)
    differences: list[PairedDifference] = field(default_factory=list)
    single: list[Result] = field(default_factory=list)
    spreads: list[SeedSpread] = field(default_factory=list)
    methods: dict[str, Any] = field(default_factory=dict)
    reductions: list[SeedReduction] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, results: Sequence[Result], methods: dict[str, Any] | None = None, notes: Sequence[str] = ()
    ) -> Comparison:
        """Joins seeds and pairs every method with the first on the same data and shape.

        Args:
            notes: what is known already that a reader must be told.
        """
        trained = by_method(results)
        baseline = trained[0].result.method
        base = {(t.result.dataset, t.result.way, t.result.shot): t for t in trained if t.result.method == baseline}
        pairs = [
            paired_over_seeds(other, base[r.dataset, r.way, r.shot])
            for other in trained
            for r in [other.result]
            if r.method != baseline and (r.dataset, r.way, r.shot) in base
        ]
        reductions, unreduced = seed_reductions(trained)
        return cls(
            results=[t.result for t in trained],
            differences=[difference for difference, _ in pairs if difference],
            single=list(results),
            spreads=spreads_over_seeds(trained),
            methods=methods or {},
            reductions=reductions,
            notes=[*notes, *(note for _, note in pairs if note), *unreduced],
        )

    def table(self) -> str:
        """Errors in percent with 95 % intervals over episodes, then the paired differences."""
        text = legend(self.results) + "\n\n" + format_table(self.results)
        for r in self.results:
            if r.per_run is not None:
                errors = ", ".join(f"{100 * error:g}" for error in r.per_run)
                text += f"\n\n{r.method}: error of each of the {r.episodes} prescribed episodes, %: {errors}"
        if self.differences:
            text += "\n\npaired difference from the first method, in points (negative: a lower error)\n"
            for d in self.differences:
                gap = percent(d.difference, d.half_width, d.over_classes, sign="+")
                mark = d.mark()
                text += f"  {d.other}, {d.dataset}, {d.way}-way {d.shot}-shot: {gap}{mark and '   ' + mark}\n"
        if self.spreads:
            text += "\n\nspread over training seeds (standard deviation of the error, in points)\n"
            for s in self.spreads:
                text += (
                    f"  {s.method}, {s.dataset}, {s.way}-way {s.shot}-shot: "
                    f"{100 * s.error:.2f}, sd {100 * s.deviation:.2f}\n"
                )
        if self.reductions:
            text += "\n\nerror reduction in % of the other's error, paired by training seed, 95 % interval over seeds\n"
            text += "".join(f"  {r.text()}\n" for r in self.reductions)
        if self.notes:
            text += "\n\n" + "\n".join(self.notes)
        return text.rstrip()

    def save(self, path: Path) -> None:
        """JSON with every result, every difference, and the command and commit that made them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        joined = [trained for trained in by_method(self.single) if len(trained.seeds) > 1]
        write_json(
            path,
            {
                "provenance": provenance(),
                "results": [r.to_dict() for r in self.results],
                "differences": [d.to_dict() for d in self.differences],
                "seeds": [asdict(s) for s in self.spreads],
                "reductions": [{**asdict(r), "clear_of_zero": r.clear_of_zero} for r in self.reductions],
                "single_seeds": [r.of_seed(t.result.method) for t in joined for r in t.seeds.values()],
                "notes": self.notes,
                "methods": self.methods,
            },
        )
