"""The command line's parser, made from the functions' signatures and docstrings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, get_type_hints

from metagvae.compute.processes import ranks


def _headline(function: Callable[..., Any]) -> str:
    """The first sentence of a function's docstring."""
    return (function.__doc__ or "").strip().split(".")[0]


def _described(function: Callable[..., Any], name: str) -> str:
    """The text on an argument in a function's docstring."""
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
    """The element type of each argument of type ``list[int] | None`` or ``list[str] | None``."""
    kinds = {list[int] | None: int, list[str] | None: str}
    return {name: kinds[hint] for name, hint in get_type_hints(function).items() if hint in kinds}


def build_parser() -> Any:
    """The command line's parser."""
    import jsonargparse

    from metagvae.cli.commands import COMMANDS, CONFIGURED, GROUPS

    class ArgumentParser(jsonargparse.ArgumentParser):
        def __init__(self, **options: Any) -> None:
            super().__init__(allow_abbrev=False, **options)  # --conf would go round what --config checks

        def error(self, message: str, ex: Any = None) -> NoReturn:
            """One message and status 2, in place of two pages of usage."""
            ranks().tell(f"metagvae: {message}\nAllowed settings: {self.prog.replace(' [options]', '')} --help")
            raise SystemExit(2)

    def of_config(cls: type, function: Callable[..., None]) -> Any:
        sub = ArgumentParser(description=f"{_headline(function)}.")
        sub.add_argument("--config", action="config", help="YAML file with any of the settings below.")
        sub.add_class_arguments(cls, None)
        return sub

    def of_function(function: Callable[..., None]) -> Any:
        sub = ArgumentParser(description=(function.__doc__ or "").strip().splitlines()[0])
        # argparse's own nargs, so that `--way 5 20` works beside jsonargparse's `--way [5,20]`
        lists, several = _lists(function), [n for n, hint in get_type_hints(function).items() if hint == list[str]]
        for name in several:
            sub.add_argument(name, type=str, nargs="+", help=_described(function, name))
        sub.add_function_arguments(function, as_positional=True, skip={*lists, *several})
        for name, kind in lists.items():
            sub.add_argument(f"--{name}", type=kind, nargs="+", help=_described(function, name))
        return sub

    parser = ArgumentParser(
        prog="metagvae",
        description="Few-shot meta-learning with guided variational autoencoders. Every command takes --import MODULE, "
        "a Python module whose own data sets, guidances, learners or other parts are registered first.",
    )
    commands = parser.add_subcommands(dest="command")
    for name, (cls, function) in CONFIGURED.items():
        commands.add_subcommand(name, of_config(cls, function), help=_headline(function))
    for name, function in COMMANDS.items():
        commands.add_subcommand(name, of_function(function), help=_headline(function))
    for name, (text, actions) in GROUPS.items():
        group = ArgumentParser(description=f"{text[:1].upper()}{text[1:]}.")
        commands.add_subcommand(name, group, help=text)
        choices = group.add_subcommands(dest="action")
        for action, function in actions.items():
            choices.add_subcommand(action, of_function(function), help=_headline(function))
    return parser
