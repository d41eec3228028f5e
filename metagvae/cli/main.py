"""Running a command: the status it ends in, and one sentence for what stopped it."""

from __future__ import annotations

import importlib
import sys
from argparse import Namespace
from dataclasses import is_dataclass
from typing import Any, get_type_hints

from episodes.errors import InputError
from metagvae.cli import terminal
from metagvae.cli.settings import in_order
from metagvae.compute.processes import PeerLost, join, leave, ranks
from metagvae.runs.signals import STOPPED, Interrupted
from metagvae.storage.atomic_files import OUT_OF_DISK

TOGETHER = ("pretrain", "train", "evaluate")
MAX_MESSAGE = 20_000
CLOSED = 141  # as a shell shows a process that a closed pipe ended


def run(arguments: list[str] | None) -> None:
    """Parses the arguments and calls the command's function."""
    from metagvae.cli.commands import COMMANDS, CONFIGURED, GROUPS
    from metagvae.cli.parser import build_parser

    arguments = _in_order(_import_modules(sys.argv[1:] if arguments is None else arguments))
    join()
    parser = build_parser()
    chosen = parser.parse_args(arguments)
    command, settings = chosen.command, chosen[chosen.command]
    if ranks().size > 1 and command not in TOGETHER:
        raise InputError(f"several processes can do {', '.join(TOGETHER)}; start {command} without torchrun.")
    if command in CONFIGURED:
        CONFIGURED[command][1](_instantiated(parser, chosen))
    elif command in GROUPS:
        GROUPS[command][1][settings.action](**vars(settings[settings.action]))
    else:
        COMMANDS[command](**vars(settings))


def _import_modules(arguments: list[str]) -> list[str]:
    """Imports what ``--import MODULE`` names, so that a user's own parts are registered; returns the other arguments.

    Only the command line can do this: a config may be a stranger's, and imports nothing.
    """
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        option, sign, name = word.partition("=")
        if option != "--import":
            rest.append(word)
            continue
        name = name if sign else next(words, "")
        if not all(part.isidentifier() for part in name.split(".")):
            raise InputError(
                f"--import takes the name of a Python module, such as my_module for my_module.py in this folder; "
                f"received {name!r}."
            )
        if "" not in sys.path:
            sys.path.insert(0, "")  # the folder that the command was started in, as `python -m` has it
        try:
            importlib.import_module(name)
        except Exception as error:  # a user's module may raise anything
            raise InputError(
                f"--import {name}: the module cannot be imported ({type(error).__name__}: {error}). It must be a file "
                f"{name.replace('.', '/')}.py in this folder, or installed."
            ) from error
    return rest


def configured(arguments: list[str]) -> Any:
    """The config that a command which takes ``--config`` would be called with."""
    from metagvae.cli.parser import build_parser

    parser = build_parser()
    return _instantiated(parser, parser.parse_args(_in_order(arguments)))


def _in_order(arguments: list[str]) -> list[str]:
    """The command's name, its config files, then its other options; see `metagvae.cli.settings`."""
    from metagvae.cli.commands import CONFIGURED

    if not arguments or arguments[0] not in CONFIGURED:
        return arguments
    return [arguments[0], *in_order(arguments[1:], CONFIGURED[arguments[0]][0])]


def _instantiated(parser: Any, chosen: Any) -> Any:
    from metagvae.cli.commands import CONFIGURED

    cls, settings = CONFIGURED[chosen.command][0], chosen[chosen.command]
    for name, hint in get_type_hints(cls).items():
        if is_dataclass(hint) and not isinstance(settings[name], Namespace):
            raise InputError(f"the section '{name}' must hold settings; received {repr(settings[name])[:100]}.")
    values = vars(parser.instantiate(chosen)[chosen.command])
    return cls(**{key: value for key, value in values.items() if key != "config"})


def _one_line(error: InputError) -> str:
    """The message, cut where a stranger made it long."""
    text = str(error)
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} ..."


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and prints one message if it cannot end well.

    Returns 0; 2 for unusable input or a full disk; 75 for a run that was asked to stop, its state written; 130 for
    what was stopped at once; 141 if who read the output has closed it; 1 if another of several processes is gone.
    """
    terminal.prepare()
    try:
        try:
            run(arguments)
            leave()
        finally:
            terminal.flush()
    except InputError as error:
        ranks().tell(f"metagvae: {_one_line(error)}")
        return 2
    except KeyboardInterrupt:
        ranks().tell("metagvae: stopped")
        return 130
    except Interrupted as error:
        ranks().tell(f"metagvae: {error}")
        return STOPPED
    except PeerLost as error:
        ranks().tell_lost(error)
        return 1
    except BrokenPipeError:
        terminal.abandon()
        return CLOSED
    except OSError as error:  # of what no other message covers, such as a figure
        if error.errno not in OUT_OF_DISK:
            raise
        terminal.abandon()
        ranks().tell(f"metagvae: no room for {error.filename or 'a file'} ({error.strerror}); make room first")
        return 2
    return 0
