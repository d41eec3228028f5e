"""The whole command line's parser."""

from __future__ import annotations

from typing import Any

from metagvae.cli.arguments import headline, made, of_config, of_function, parser_class
from metagvae.cli.commands import COMMANDS, CONFIGURED, GROUPS
from metagvae.cli.settings import in_order


def build_parser() -> Any:
    """The command line's parser."""
    ArgumentParser = parser_class()
    parser = ArgumentParser(
        prog="metagvae",
        description="Few-shot meta-learning with guided variational autoencoders. Every command takes --import MODULE, "
        "a Python module whose own data sets, guidances, learners or other parts are registered first.",
    )
    commands = parser.add_subcommands(dest="command")
    for name, (cls, function) in CONFIGURED.items():
        commands.add_subcommand(name, of_config(cls, f"{headline(function)}."), help=headline(function))
    for name, function in COMMANDS.items():
        commands.add_subcommand(name, of_function(function), help=headline(function))
    for name, (text, actions) in GROUPS.items():
        group = ArgumentParser(description=f"{text[:1].upper()}{text[1:]}.")
        commands.add_subcommand(name, group, help=text)
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
    parser = build_parser()
    chosen = parser.parse_args(options_last(arguments))
    command = chosen.command
    return made(CONFIGURED[command][0], chosen[command], parser.instantiate(chosen)[command])
