"""The work of `metagvae identify mixtures`: are the sources of a mixture found one by one, from how many rows?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from episodes import InputError
from metagvae.evaluation.identifiability import mcc
from metagvae.evaluation.text_table import table_of
from metagvae.guidance.contrast import SegmentContrast
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.studies.mixtures import Mixture, Rows

SCORED = 10_000  # fresh rows that every score is taken on
LOOKS = 20  # at the held-out contrast, during a training


@dataclass(frozen=True)
class Learning:
    """How a code is learnt by contrast.

    Args:
        widths: of the network's two hidden layers; each is tried, and 0 is a linear map.
        restarts: trainings of each width, from other first weights.
        steps, batch, lr: of Adam, whose rate falls as a cosine.
        statistics: of each unit, see `metagvae.guidance.contrast.SegmentContrast`.
        held_out: share of the rows by whose contrast the restart, the width and the step are chosen.
    """

    widths: tuple[int, ...] = (16, 64, 128)
    restarts: int = 4
    steps: int = 2000
    batch: int = 512
    lr: float = 1e-2
    statistics: int = 2
    held_out: float = 0.2

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 0 or min(self.restarts, self.steps, self.batch) < 1 or self.lr <= 0:
            raise InputError(
                "learning by contrast needs widths of 0 or more, restarts, steps and a batch of 1 or more, and a rate "
                f"above 0; received {list(self.widths)}, {self.restarts}, {self.steps}, {self.batch} and {self.lr}."
            )
        if not 0 < self.held_out < 1:
            raise InputError(f"the share of rows held out must lie between 0 and 1; received {self.held_out}.")


class Code(nn.Module):
    """A code ``[rows, units]`` of mixed rows of the same shape: three layers, after standardising by known rows.

    One layer, which is linear, where ``width`` is 0.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, known: Tensor, width: int) -> None:
        super().__init__()
        size = known.shape[1]
        self.register_buffer("mean", known.mean(0))
        self.register_buffer("deviation", known.std(0))
        self.layers: nn.Module = nn.Linear(size, size)
        if width:
            hidden = (nn.Linear(size, width), nn.LeakyReLU(0.1), nn.Linear(width, width), nn.LeakyReLU(0.1))
            self.layers = nn.Sequential(*hidden, nn.Linear(width, size))

    def forward(self, x: Tensor) -> Tensor:
        code: Tensor = self.layers((x - self.mean) / self.deviation)
        return code


@dataclass(frozen=True)
class Learnt:
    """A code, its contrast on the rows held out (nats) and the width of its network."""

    code: Code
    contrast: float
    width: int


class Trial(nn.Module):
    """A code and its contrast; called with rows and their segments, the loss."""

    def __init__(self, known: Tensor, segments: int, width: int, statistics: int) -> None:
        super().__init__()
        self.code = Code(known, width)
        self.contrast = SegmentContrast(segments, known.shape[1], statistics)

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        return self.contrast.loss(self.code(x), segments)


def learn(x: Tensor, segments: Tensor, width: int, learning: Learning, seed: int = 0) -> list[Learnt]:
    """The codes of all restarts of one width, each at the step where the contrast of the rows held out was least.

    The restarts are trained side by side on the same rows: small networks cost a processor hardly more together.

    Args:
        x: ``[rows, sources]``.
        segments: int64 ``[rows]``.
    """
    kept = len(x) - max(1, round(learning.held_out * len(x)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trials = [
            Trial(x[:kept], int(segments.max()) + 1, width, learning.statistics) for _ in range(learning.restarts)
        ]
        weights, buffers = stack_module_state(trials)
        losses = vmap(partial(functional_call, trials[0]), in_dims=(0, None))  # one network's code, many weights
        optimiser = torch.optim.Adam(weights.values(), learning.lr, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, learning.steps)
        best = torch.full((learning.restarts,), torch.inf)
        at_best = {name: value.detach().clone() for name, value in weights.items()}
        for step in range(1, learning.steps + 1):
            rows = torch.randint(kept, (min(learning.batch, kept),))
            loss = losses({**weights, **buffers}, (x[rows], segments[rows])).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if step % max(1, learning.steps // LOOKS) == 0 or step == learning.steps:
                with torch.no_grad():
                    held = losses({**weights, **buffers}, (x[kept:], segments[kept:]))
                    better = held < best
                    best = torch.where(better, held, best)
                    for name, value in weights.items():
                        at_best[name][better] = value[better]
    for number, trial in enumerate(trials):
        trial.load_state_dict({**trial.state_dict(), **{name: value[number] for name, value in at_best.items()}})
    return [Learnt(trial.code, float(held), width) for trial, held in zip(trials, best, strict=True)]


@torch.no_grad()
def score(code: nn.Module, known: Rows, fresh: Rows, method: str = "pearson") -> float:
    """`mcc` of a code: units assigned on known rows, scored on fresh ones."""
    codes, fit = (code(rows.x).numpy() for rows in (fresh, known))
    return mcc(codes, fresh.sources.numpy(), fit, known.sources.numpy(), method).score


def linear_score(known: Rows, fresh: Rows, seed: int) -> float:
    """`mcc` of scikit-learn's FastICA on the mixed rows, which knows no segments."""
    import warnings

    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    ica = FastICA(whiten="unit-variance", random_state=seed, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = ica.fit_transform(known.x.numpy())
    return mcc(ica.transform(fresh.x.numpy()), fresh.sources.numpy(), fit, known.sources.numpy()).score


@dataclass(frozen=True)
class Finding:
    """Scores of one mixture from one number of rows.

    Args:
        mcc, spearman: of the code whose held-out contrast was least, by correlation and by correlation of ranks.
        width, contrast: that code's network, and its contrast on rows held out, nats.
        by_width: ``mcc`` of the best restart of each width, as ``[width, mcc, contrast]``.
        fast_ica, untrained, shuffled: ``mcc`` of the controls: a linear method, first weights, segments shuffled.
    """

    mixture: int
    rows: int
    mcc: float
    spearman: float
    width: int
    contrast: float
    by_width: list[tuple[int, float, float]]
    fast_ica: float
    untrained: float
    shuffled: float


def identify(mixture: Mixture, rows: int, learning: Learning) -> Finding:
    """Learns codes of ``rows`` rows of a mixture and scores the one of least held-out contrast; no source is used."""
    known, fresh = (_single(mixture.draw(count, seed)) for count, seed in ((rows, 0), (SCORED, 1)))
    widths = list(dict.fromkeys(learning.widths))
    found = [one for width in widths for one in learn(known.x, known.segments, width, learning)]
    scored = [(one.width, score(one.code, known, fresh), one.contrast) for one in found]
    best = min(found, key=lambda one: one.contrast)
    by_width = [min((row for row in scored if row[0] == width), key=lambda row: row[2]) for width in widths]
    torch.manual_seed(0)
    shuffled = known.segments[torch.randperm(len(known))]
    fooled = min(learn(known.x, shuffled, best.width, learning), key=lambda one: one.contrast)
    return Finding(
        mixture.seed,
        rows,
        score(best.code, known, fresh),
        score(best.code, known, fresh, "spearman"),
        best.width,
        best.contrast,
        by_width,
        linear_score(known, fresh, 0),
        score(Code(known.x, best.width), known, fresh),
        score(fooled.code, known, fresh),
    )


def _single(rows: Rows) -> Rows:
    return Rows(rows.x.float(), rows.sources.float(), rows.segments)


@dataclass
class Curve:
    """Findings of several mixtures and numbers of rows, and how they were made."""

    mixture: Mixture
    learning: Learning
    findings: list[Finding] = field(default_factory=list)

    def table(self) -> str:
        """A row for each number of rows: means over the mixtures."""
        return table_of(self.plain())

    def plain(self) -> list[dict[str, str]]:
        """Rows of text, a table's cells by column."""
        table = []
        for rows in sorted({finding.rows for finding in self.findings}):
            of = [finding for finding in self.findings if finding.rows == rows]
            columns = {
                "MCC": [finding.mcc for finding in of],
                "Spearman": [finding.spearman for finding in of],
                **{
                    f"MCC, width {width}": [each[1] for finding in of for each in finding.by_width if each[0] == width]
                    for width in self.learning.widths
                },
                "FastICA": [finding.fast_ica for finding in of],
                "untrained": [finding.untrained for finding in of],
                "segments shuffled": [finding.shuffled for finding in of],
            }
            cells = {name: f"{np.mean(values):.3f}{_half(values)}" for name, values in columns.items()}
            widths = " ".join(str(finding.width) for finding in of)
            table.append({"rows": f"{rows:,}", **cells, "widths chosen": widths})
        return table

    def save(self, path: Path, command: str | None = None) -> None:
        """Writes everything as JSON."""
        mixtures = len({finding.mixture for finding in self.findings})
        about = (
            f"Mean correlation with the sources on {SCORED:,} fresh rows, "
            f"{f'± the 95 % interval over {mixtures} mixtures' if mixtures > 1 else 'one mixture'}; restart, width "
            "and step chosen by the contrast of rows held out."
        )
        facts: dict[str, Any] = {
            "provenance": provenance(),
            "about": about,
            "mixture": {key: getattr(self.mixture, key) for key in ("sources", "segments", "layers", "base", "means")},
            "learning": asdict(self.learning),
            "rows": self.plain(),
            "findings": [_written(finding) for finding in self.findings],
        }
        write_json(path, facts)


def _written(finding: Finding) -> dict[str, Any]:
    """A finding as JSON keeps it: to four digits."""
    facts = {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(finding).items()}
    return {**facts, "by_width": [[width, round(one, 4), round(loss, 4)] for width, one, loss in finding.by_width]}


def _half(values: Sequence[float]) -> str:
    """Half of the 95 % interval of a mean, by Student's t, as a table has it; of a single value there is none."""
    from scipy.stats import t

    if len(values) < 2:
        return ""
    return f" ± {t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5:.3f}"


def curve(mixture: Mixture, samples: Sequence[int], mixtures: int, learning: Learning) -> Iterator[Finding]:
    """Findings of ``mixtures`` mixtures, of seeds from the given one's on, for each number of rows."""
    least = 10 * mixture.segments
    if not samples or min(samples) < least:
        raise InputError(
            f"a contrast of {mixture.segments} segments needs {least} rows or more; received {list(samples)}."
        )
    if mixtures < 1:
        raise InputError(f"there must be 1 mixture or more; received {mixtures}.")
    settings = {key: getattr(mixture, key) for key in ("sources", "segments", "layers", "base", "means")}
    for rows in dict.fromkeys(samples):
        for seed in range(mixture.seed, mixture.seed + mixtures):
            yield identify(Mixture(**settings, seed=seed), rows, learning)
