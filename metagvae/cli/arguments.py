"""Parsers of single commands, made from the signatures and docstrings of functions and config classes."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, NoReturn, TypeVar, get_type_hints

from episodes.errors import InputError
from metagvae.cli.settings import check_finite, check_nulls, in_order
from metagvae.compute.processes import ranks

Config = TypeVar("Config")


def headline(function: Callable[..., Any]) -> str:
    """The first sentence of a function's docstring."""
    return re.split(r"\.(?:\s|$)", (function.__doc__ or "").strip())[0]


def option_groups(function: Callable[..., Any]) -> dict[str, type]:
    """The arguments of a function that are dataclasses: each of their fields is an option of the command."""
    hints = get_type_hints(function).items()
    return {name: hint for name, hint in hints if isinstance(hint, type) and is_dataclass(hint)}


def call(function: Callable[..., None], settings: Namespace) -> None:
    """Calls a command's function with parsed settings, its groups of options put together."""
    check_finite(settings)
    given = dict(vars(settings))
    for name, kind in option_groups(function).items():
        given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind) if field.init})
    function(**given)


def _described(function: Callable[..., Any], name: str) -> str:
    """The text on an argument in the docstring of a function or class."""
    lines = iter((function.__doc__ or "").splitlines())
    text = next(line for line in lines if line.strip().startswith(f"{name}:"))
    indent = len(text) - len(text.lstrip())
    parts = [text.split(":", 1)[1].strip()]
    for line in lines:
        if len(line) - len(line.lstrip()) <= indent:
            break
        parts.append(line.strip())
    return " ".join(parts)


def _lists(function: Callable[..., Any]) -> dict[str, type]:
    """The element type of each argument of type ``list[int] | None``, of float or of str."""
    kinds = {list[int] | None: int, list[float] | None: float, list[str] | None: str}
    return {name: kinds[hint] for name, hint in get_type_hints(function).items() if hint in kinds}


@cache
def parser_class() -> Any:
    """jsonargparse's parser, with one message for what is wrong; imported when the first one is made."""
    import jsonargparse

    class ArgumentParser(jsonargparse.ArgumentParser):
        def __init__(self, **options: Any) -> None:
            super().__init__(allow_abbrev=False, **options)  # --conf would go round what --config checks

        def instantiate(self, *given: Any, **options: Any) -> Any:
            """Sections made into their classes; what a section refuses is said as it says it, and nothing around it."""
            try:
                return super().instantiate(*given, **options)
            except ValueError as error:  # of a section that may be left out: jsonargparse wraps what was raised
                refusal = _refusal(error)
                if refusal is None:
                    raise
                raise refusal from None

        def error(self, message: str, ex: Any = None) -> NoReturn:
            """One message and status 2 instead of two pages of usage."""
            ranks().tell(f"metagvae: {message}\nAllowed settings: {self.prog.replace(' [options]', '')} --help")
            raise SystemExit(2)

    return ArgumentParser


def _refusal(error: BaseException | None) -> InputError | None:
    """The package's own error that led to another one, or None."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def of_config(cls: type, text: str) -> Any:
    """The parser of a command that takes ``--config`` and the settings of a config class."""
    parser = parser_class()(description=text)
    parser.add_argument("--config", action="config", help="YAML file with any of the settings below.")
    parser.add_class_arguments(cls, None)
    return parser


def of_function(function: Callable[..., None]) -> Any:
    """The parser of a command whose arguments are a function's."""
    parser = parser_class()(description=(function.__doc__ or "").strip().splitlines()[0])
    groups = option_groups(function)
    several = [name for name, hint in get_type_hints(function).items() if hint == list[str]]
    for name in several:
        parser.add_argument(name, type=str, nargs="+", help=_described(function, name))
    parser.add_function_arguments(function, as_positional=True, skip={*_lists(function), *several, *groups})
    for kind in groups.values():
        parser.add_class_arguments(kind, None, skip=set(_lists(kind)))
    owners: list[Callable[..., Any]] = [function, *groups.values()]
    for owner in owners:
        # argparse's own nargs, so that `--way 5 20` works beside jsonargparse's `--way [5,20]`
        for name, element in _lists(owner).items():
            parser.add_argument(f"--{name}", type=element, nargs="+", help=_described(owner, name))
    return parser


def made(cls: type[Config], settings: Namespace, instantiated: Callable[[], Namespace]) -> Config:
    """The config of a parsed command.

    Args:
        settings: as parsed; a section that holds no settings is refused, and so are nulls and numbers that no
            setting takes.
        instantiated: gives the same, its sections made into their classes.
    """
    check_nulls(cls, settings)
    check_finite(settings)
    for name, hint in get_type_hints(cls).items():
        if is_dataclass(hint) and not isinstance(settings[name], Namespace):  # type: ignore[index]
            raise InputError(f"the section '{name}' must hold settings; received {repr(settings[name])[:100]}.")  # type: ignore[index]
    return cls(**{key: value for key, value in vars(instantiated()).items() if key != "config"})


def config_in(file: str, cls: type[Config], text: str) -> Config:
    """The config that a YAML file holds, as the command that takes ``cls`` would read it by ``--config``."""
    parser = of_config(cls, text)
    settings = parser.parse_args(in_order(["--config", file], cls))
    return made(cls, settings, lambda: parser.instantiate(settings))
