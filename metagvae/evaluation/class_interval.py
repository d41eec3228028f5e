"""The interval over classes: how far a few-shot error moves when other classes of the same kind are drawn.

docs/concepts/interval.md has the estimator's mathematics and its coverage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from episodes import ImageBank, InputError
from metagvae.runs.class_families import plain_name

ATTRIBUTES = ("alphabet", "script")  # classes of one value resemble each other, so these are the units drawn together
FEW = 20  # of fewer classes the choice of classes outweighs that of episodes: its interval is shown first
LEAST = 3  # units; of two, Student's t has one degree of freedom, and its interval is of no use


@dataclass(frozen=True)
class ClassInterval:
    """A 95 % interval over the choice of classes; None and the whole range where there are too few to tell.

    Attributes:
        unit: what is drawn together: ``class``, or an attribute such as ``alphabet``.
        units, classes: how many the episodes were drawn from.
        half_width: of the mean over all choices of classes, in first order.
        low, high: that interval, within what can be.
        other_low, other_high: where the error on as many other classes lies, 95 times in 100.
    """

    unit: str
    units: int
    classes: int
    half_width: float | None
    low: float
    high: float
    other_low: float
    other_high: float

    @property
    def few(self) -> bool:
        return self.classes < FEW

    @property
    def clear_of_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def drawn(self) -> str:
        """The units that the interval is over, for a legend."""
        name = {"class": "classes"}.get(self.unit, f"{self.unit}s") if self.units > 1 else self.unit
        return f"{self.units} {name}"


@dataclass(frozen=True)
class ClassJackknife:
    """An error, or a difference of two, and what it would be without each unit of classes.

    Attributes:
        unit, classes: as in `ClassInterval`.
        error: in [0, 1]; of a difference in [-1, 1].
        without: float64 ``[units]``; NaN where nothing would be left.
    """

    unit: str
    classes: int
    error: float
    without: np.ndarray = field(repr=False)

    def minus(self, other: ClassJackknife) -> ClassJackknife:
        """That of the paired difference on the same episodes."""
        return ClassJackknife(self.unit, self.classes, self.error - other.error, self.without - other.without)

    @staticmethod
    def mean(several: Sequence[ClassJackknife]) -> ClassJackknife:
        """That of a mean of errors on the same episodes."""
        first, error = several[0], float(np.mean([one.error for one in several]))
        return ClassJackknife(first.unit, first.classes, error, np.mean([one.without for one in several], axis=0))

    def interval(self, difference: bool = False) -> ClassInterval:
        """By Student's t with ``units - 1`` degrees of freedom; an error's on the logit scale, so within [0, 1].

        Without a single mistake there is nothing to take a deviation of: the interval then ends at the largest share
        of units with mistakes that would show none among so many in one case of 20.
        """
        from scipy.special import expit, logit

        units = len(self.without)
        lowest = -1.0 if difference else 0.0

        def made(half: float | None, *ends: float) -> ClassInterval:
            return ClassInterval(self.unit, units, self.classes, half, *ends)

        if units < LEAST or np.isnan(self.without).any():
            return made(None, lowest, 1.0, lowest, 1.0)
        if not difference and not 0 < self.error < 1:
            share = 1 - 0.05 ** (1 / units)
            return made(None, *((0.0, share, 0.0, 1.0) if self.error <= 0 else (1 - share, 1.0, 0.0, 1.0)))
        deviations = self.without - self.without.mean()
        half = float(student_quantile(units - 1) * math.sqrt((units - 1) / units * (deviations**2).sum()))
        wide = math.sqrt(2) * half  # another draw moves as much as this one did

        def end(part: float) -> float:
            if difference:
                return min(max(self.error + part, -1.0), 1.0)
            return float(expit(logit(self.error) + part / (self.error * (1 - self.error))))

        return made(half, end(-half), end(half), end(-wide), end(wide))

    def to_dict(self, difference: bool = False) -> dict[str, Any]:
        """The interval and the replicates, as plain values."""
        without = [None if math.isnan(one) else round(one, 9) for one in self.without.tolist()]
        return {**vars(self.interval(difference)), "without": without}


def student_quantile(freedom: int) -> float:
    """Half of a 95 % interval in standard errors: the 97.5 % quantile of Student's t."""
    from scipy.special import stdtrit  # scipy.stats gives the same, and every command would wait for its import

    return float(stdtrit(freedom, 0.975))


def own_classes(bank: ImageBank) -> Tensor:
    """int64 ``[classes]``: the number of each class, its quarter turns counted as the same one."""
    names = [plain_name(name) for name in bank.class_names]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])


def class_units(bank: ImageBank, by: str | None = None) -> tuple[str, Tensor]:
    """The unit that the classes of a bank are drawn by, and the number of each class's unit, int64 ``[classes]``.

    Args:
        by: an attribute, or ``class``; None takes the first of `ATTRIBUTES` that tells three values or more apart,
            else the class. A class's quarter turns are one unit, and classes whose value is unknown are each their own.

    Raises:
        InputError: if the classes have no such attribute.
    """
    if by not in (None, "class", *bank.attributes):
        raise InputError(
            f"the interval over classes can be taken by 'class' or by an attribute that the classes of {bank.dataset} "
            f"have ({', '.join(bank.attributes) or 'none'}); received {by!r}."
        )
    own = own_classes(bank)
    for attribute in ATTRIBUTES if by is None else (by,):
        if attribute in bank.attributes:
            values = bank.attributes[attribute].values.cpu()
            if by is not None or len(values[values >= 0].unique()) >= LEAST:
                return attribute, torch.where(values >= 0, values, own + int(values.max()) + 1)
    return "class", own


class ClassTally:
    """Adds up what a `ClassJackknife` needs while episodes are measured: a few numbers a unit.

    A mistake falls on the class that the query is of. It falls on the class it is put into as well if that class alone
    is to blame: without it, the query would have been got right.

    Args:
        bank: whose classes the episodes are of.
        by: as `class_units` takes it.
        device: where to count; the bank's if None.
    """

    def __init__(self, bank: ImageBank, by: str | None = None, device: torch.device | None = None) -> None:
        device = device or bank.device
        self.unit, units = class_units(bank, by)
        self.units, self.own = units.to(device), own_classes(bank)
        count = int(units.max()) + 1
        # whole numbers, so that no order of adding matters. Of each unit: queries got wrong, those of other units got
        # wrong through it alone, places in episodes, and beside how many classes of other units they were
        self.counts = torch.zeros(4, count, dtype=torch.float64, device=device)
        self.seen = torch.zeros(bank.num_classes, dtype=torch.float64, device=device)
        self.totals = torch.zeros(3, dtype=torch.float64, device=device)  # wrong, wrong through one alone, episodes
        self.way = self.query = 0

    def add(self, classes: Tensor, answers: Tensor, others: Tensor, labels: Tensor) -> None:
        """Counts T episodes.

        Args:
            classes: class numbers ``[T, N]``.
            answers, others: the way that each query is put into, and that which it would be without that way.
            labels: the way that it is of; these three are ``[T, N * Q]``.
        """
        classes = classes.to(self.counts.device, non_blocking=True)
        self.way, self.query = classes.shape[1], labels.shape[1] // classes.shape[1]
        units = self.units[classes]
        of, into = units.gather(1, labels), units.gather(1, answers)
        wrong = (answers != labels).double()
        alone = wrong * (others == labels)
        beside = (units.unsqueeze(-1) != units.unsqueeze(-2)).sum(-1).double()
        whole = torch.ones_like(beside)
        for row, places, values in (
            (0, of, wrong),
            (1, into, alone * (into != of)),
            (2, units, whole),
            (3, units, beside),
        ):
            self.counts[row].index_add_(0, places.flatten(), values.flatten())
        self.seen.index_add_(0, classes.flatten(), whole.flatten())
        self.totals += torch.stack([wrong.sum(), alone.sum(), whole[:, 0].sum()])

    def result(self, add_up: Callable[[Tensor], Tensor] = lambda counts: counts) -> ClassJackknife:
        """The replicates.

        Args:
            add_up: over all processes.
        """
        sizes = [self.counts.numel(), len(self.seen), 3]
        flat, seen, totals = add_up(torch.cat([self.counts.flatten(), self.seen, self.totals])).cpu().split(sizes)
        wrong, alone, episodes = totals.tolist()
        counts = flat.view(4, -1).numpy()
        lost, caused, places, beside = counts[:, counts[2] > 0]
        queries = episodes * self.way * self.query
        # queries that go with a unit: its own, and as many of the others' as can fall on it
        gone = self.query * (places + alone / max(wrong, 1) * beside / (self.way - 1))
        left = queries - gone
        with np.errstate(divide="ignore", invalid="ignore"):
            without = np.where(left > 1e-6 * queries, (wrong - lost - caused) / left, np.nan)
        return ClassJackknife(self.unit, len(self.own[seen > 0].unique()), wrong / queries, without)


def signed(value: float, sign: str = "+") -> str:
    """A number of two decimals under a sign of format strings; what rounds to zero is not negative.

    Example:
        >>> signed(-0.001), signed(-0.01), signed(0.5, "")
        ('+0.00', '-0.01', '0.50')
    """
    return f"{round(value, 2) + 0.0:{sign}.2f}"


def percent(value: float, half_width: float, over: ClassInterval | None = None, sign: str = "") -> str:
    """An error or a difference as percent, ± its interval over episodes, and in brackets that over classes.

    Of few classes the brackets come first.
    """
    text, episodes = signed(100 * value, sign), f"± {100 * half_width:.2f}"
    if over is None:
        return f"{text} {episodes}"
    classes = f"[{signed(100 * over.low, sign)}, {signed(100 * over.high, sign)}]"
    return f"{text} {classes} {episodes}" if over.few else f"{text} {episodes} {classes}"
