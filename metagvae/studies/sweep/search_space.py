"""The search space of a sweep: ranges for keys of a training config, and configs with values put in."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, TypeVar

from episodes import InputError
from episodes.counter_rng import check_seed
from metagvae.config.parse import from_dict
from metagvae.config.sections import PretrainConfig, TrainConfig, to_dict

Config = TypeVar("Config", bound=PretrainConfig | TrainConfig)

# sections whose change would change what the error is an error of, and why
_FIXED = {
    "run": "a better seed is no better method; the sweep sets the folders itself",
    "validation": "trials are compared on the same validation episodes",
    "data": "trials are compared on the same pictures; of this section only data.size can be searched",
}


@dataclass
class SweepConfig:
    """A search for settings of `metagvae train` or `pretrain`, judged on the validation split.

    Args:
        command: train | pretrain.
        base: YAML file of that command; what is not searched stays as it says.
        fixed: changes of the base for every trial, such as {optim.steps: 200}.
        search: ranges by key: {float: [low, high]} or {int: [low, high]}, both with log: true if wanted, or
            {choice: [...]}. A number in a key counts in a list: vae.guidance.0.weight.
        folder: the sweep's: its database, results, and a run folder per trial. The same command goes on with it.
        trials: finished ones at the end, those of earlier launches counted.
        minutes: no trial of this launch begins later; null for no limit.
        method: tpe (learns from the trials before) | random.
        prune: stop trials whose validation curve lies above the median of the trials before, for train.
        judge: labels (few-shot error on validation episodes) | views (the error on warped single validation images,
            which needs no label).
        seed: of the search and of the validation episodes that judge it; trials train with the base's run.seed.
        way: classes per validation episode that judges; null for the base's validation.way, for pretrain 5.
        shot: support pictures per class; null for the base's validation.shot, for pretrain 1.
        query: query pictures per class; null for the base's validation.query, for pretrain 15.
        episodes: how many, 2 or more.
    """

    command: str = "train"
    base: str = ""
    fixed: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    folder: str = "runs/sweep"
    trials: int = 20
    minutes: float | None = None
    method: str = "tpe"
    prune: bool = False
    judge: str = "labels"
    seed: int = 0
    way: int | None = None
    shot: int | None = None
    query: int | None = None
    episodes: int = 600

    def __post_init__(self) -> None:
        if self.command not in ("train", "pretrain"):
            raise InputError(f"command must be 'train' or 'pretrain'; received {self.command!r}.")
        if self.method not in ("tpe", "random"):
            raise InputError(f"method must be 'tpe' or 'random'; received {self.method!r}.")
        if self.judge not in ("labels", "views"):
            raise InputError(f"judge must be 'labels' or 'views'; received {self.judge!r}.")
        if self.judge == "views" and (self.prune or (self.way, self.shot, self.query) != (None, None, None)):
            raise InputError(
                "judge 'views' has episodes of its own, of single images, and no curve to prune by; leave prune, way, "
                "shot and query out."
            )
        if self.trials < 1 or (self.minutes is not None and not self.minutes > 0):
            raise InputError(
                f"a sweep needs trials >= 1 and minutes > 0 or null; received {self.trials} and {self.minutes}."
            )
        if self.episodes < 2:
            raise InputError(f"an interval needs episodes >= 2; received {self.episodes}.")
        check_seed(self.seed, "seed", 0)
        if self.prune and self.command == "pretrain":
            raise InputError("prune goes by the validation curve of a run, which pretrain has none of; leave it out.")


@dataclass(frozen=True)
class Range:
    """Where a setting is searched: numbers from ``low`` to ``high``, or ``choices``."""

    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[str, ...] = ()  # as JSON, which a database can hold whatever they are

    @classmethod
    def parse(cls, key: str, text: Any) -> Range:
        """The range that ``{float: [low, high], log: true}`` and the like describe.

        Raises:
            InputError: if it is none.
        """
        kinds = [kind for kind in ("float", "int", "choice") if isinstance(text, Mapping) and kind in text]
        if len(kinds) != 1 or set(text) - {kinds[0], "log"}:
            raise _no_range(key, text)
        (kind,) = kinds
        values, log = text[kind], text.get("log", False)
        if not isinstance(values, list) or not isinstance(log, bool) or (kind == "choice" and log):
            raise _no_range(key, text)
        if kind == "choice":
            choices = tuple(json.dumps(value, sort_keys=True) for value in values)
            if not choices or any(_alike(one, other) for one, other in combinations(values, 2)):
                raise InputError(f"search.{key} needs one choice or more, all different; received {values}.")
            return cls(kind, choices=choices)
        if len(values) != 2 or not all(_is_number(value, kind) for value in values):
            raise _no_range(key, text)
        low, high = values
        if not low < high or (log and low <= 0):
            raise InputError(
                f"search.{key} must go from a smaller to a larger number{', above 0 for log' if log else ''}; received "
                f"{low} to {high}."
            )
        return cls(kind, low, high, log)

    def distribution(self) -> Any:
        """The same for optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choice":
            return CategoricalDistribution(self.choices)
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def ends(self) -> list[Any]:
        """The values that a config must take for all to work: every choice, or the smallest and the largest."""
        if self.kind == "choice":
            return [json.loads(choice) for choice in self.choices]
        return [self.low, self.high] if self.kind == "int" else [float(self.low), float(self.high)]

    def stored(self, value: Any) -> Any:
        """A config's value as the database holds it; None if it is out of the range."""
        if self.kind == "choice":
            text = json.dumps(value, sort_keys=True)
            if text in self.choices:
                return text
            return next((choice for choice in self.choices if _alike(json.loads(choice), json.loads(text))), None)
        return value if _is_number(value, self.kind) and self.low <= value <= self.high else None

    def value(self, stored: Any) -> Any:
        """The config's value of what the database holds."""
        return json.loads(stored) if self.kind == "choice" else stored


def _alike(one: Any, other: Any) -> bool:
    """Whether two values of JSON are one setting: 0 is 0.0, and neither is false."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    return bool(one == other)


def _is_number(value: Any, kind: str) -> bool:
    allowed = int if kind == "int" else int | float
    return isinstance(value, allowed) and not isinstance(value, bool) and math.isfinite(value)


def _no_range(key: str, text: Any) -> InputError:
    return InputError(
        f"search.{key} must be {{float: [low, high]}}, {{int: [low, high]}} (with log: true if wanted) or "
        f"{{choice: [...]}}; received {repr(text)[:200]}."
    )


def parse_search(search: Mapping[str, Any]) -> dict[str, Range]:
    """The ranges by key, in the order given.

    Raises:
        InputError: if there is none, one is no range, or a key is not for searching.
    """
    if not search:
        raise InputError("a sweep needs something to search, such as search: {optim.lr: {float: [1.0e-4, 1.0e-2]}}.")
    for key in search:
        section = key.partition(".")[0]
        if section in _FIXED and key != "data.size":
            raise InputError(f"search.{key} cannot be searched: {_FIXED[section]}. Set it in the base, or in fixed.")
    return {key: Range.parse(key, text) for key, text in search.items()}


def get_value(content: Any, key: str) -> Any:
    """The value at a key of a config's plain containers; None if it is not there."""
    for part in key.split("."):
        if isinstance(content, list) and part.isdigit() and int(part) < len(content):
            content = content[int(part)]
        elif isinstance(content, Mapping) and part in content:
            content = content[part]
        else:
            return None
    return content


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """A config with the values at these keys put in.

    Raises:
        InputError: if it has no such key, or the value is not of the key's type.
    """
    content = copy.deepcopy(to_dict(config))
    for key, value in values.items():
        _put(content, key, value)
    return from_dict(type(config), content)


def _put(content: Any, key: str, value: Any) -> None:
    parts = key.split(".")
    inside, free = content, False
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(inside, list) and part.isdigit() and int(part) < len(inside):
            place: Any = int(part)
            free = True  # a guidance, whose options are its own
        elif isinstance(inside, dict) and (part in inside or (last and free)):
            place = part
            free = free or part == "options"
        else:
            allowed = range(len(inside)) if isinstance(inside, list) else inside if isinstance(inside, dict) else ()
            raise InputError(
                f"the config has no {key!r}: {'.'.join(parts[:depth]) or 'it'} has no {part!r}; it has "
                f"{', '.join(map(str, allowed)) or 'no settings'}."
            )
        if last:
            inside[place] = value
        else:
            inside = inside[place]
