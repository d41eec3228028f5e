"""The whole command line's parser."""

from __future__ import annotations

from typing import Any

import metagvae
from metagvae.cli.arguments import headline, made, of_config, of_function, parser_class
from metagvae.cli.commands import COMMANDS, CONFIGURED, GROUPS
from metagvae.cli.settings import in_order


def build_parser(command: str | None = None) -> Any:
    """The command line's parser.

    Args:
        command: the only command whose arguments are made, as all take a fifth of a second; None for all.
    """
    ArgumentParser = parser_class()
    parser = ArgumentParser(
        prog="metagvae",
        description="Few-shot meta-learning with guided variational autoencoders. Every command takes --import MODULE, "
        "a Python module whose own data sets, guidances, learners or other parts are registered first.",
        version=metagvae.__version__,
    )
    asked = {command} if command in {*CONFIGURED, *COMMANDS, *GROUPS} else {*CONFIGURED, *COMMANDS, *GROUPS}
    commands = parser.add_subcommands(dest="command")
    for name, (cls, function) in CONFIGURED.items():
        whole = of_config(cls, f"{headline(function)}.") if name in asked else ArgumentParser()
        commands.add_subcommand(name, whole, help=headline(function))
    for name, function in COMMANDS.items():
        whole = of_function(function) if name in asked else ArgumentParser()
        commands.add_subcommand(name, whole, help=headline(function))
    for name, (text, actions) in GROUPS.items():
        group = ArgumentParser(description=f"{text[:1].upper()}{text[1:]}.")
        commands.add_subcommand(name, group, help=text)
        if name in asked:
            choices = group.add_subcommands(dest="action")
            for action, function in actions.items():
                choices.add_subcommand(action, of_function(function), help=headline(function))
    return parser


def options_last(arguments: list[str]) -> list[str]:
    """The command's name, its config files, then its other options; see `metagvae.cli.settings`."""
    if not arguments or arguments[0] not in CONFIGURED:
        return arguments
    return [arguments[0], *in_order(arguments[1:], CONFIGURED[arguments[0]][0])]


def configured(arguments: list[str]) -> Any:
    """The config that a command which takes ``--config`` would be called with."""
    parser = build_parser(arguments[0])
    chosen = parser.parse_args(options_last(arguments))
    command = chosen.command
    return made(CONFIGURED[command][0], chosen[command], lambda: parser.instantiate(chosen)[command])
