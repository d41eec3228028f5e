"""Running a command: the status it ends in, and one sentence for what stopped it."""

from __future__ import annotations

import importlib
import sys

from episodes.errors import InputError
from episodes.whole_files import OUT_OF_DISK
from metagvae.cli import terminal
from metagvae.cli.arguments import call, made
from metagvae.compute.processes import PeerLost, join, leave, ranks
from metagvae.runs.signals import STOPPED, Interrupted

TOGETHER = ("pretrain", "train", "evaluate")
MAX_MESSAGE = 20_000
CLOSED = 141  # as a shell shows a process that a closed pipe ended


def run(arguments: list[str] | None) -> None:
    """Parses the arguments and calls the command's function."""
    from metagvae.cli.commands import COMMANDS, CONFIGURED, GROUPS
    from metagvae.cli.parser import build_parser, options_last

    arguments = options_last(_import_modules(sys.argv[1:] if arguments is None else arguments))
    join()
    if arguments and arguments[0] not in CONFIGURED:
        _check_once(arguments)
    parser = build_parser(arguments[0] if arguments else None)
    chosen = parser.parse_args(arguments)
    command, settings = chosen.command, chosen[chosen.command]
    if ranks().size > 1 and command not in TOGETHER:
        raise InputError(f"several processes can do {', '.join(TOGETHER)}; start {command} without torchrun.")
    if command in CONFIGURED:
        cls, function = CONFIGURED[command]
        function(made(cls, settings, lambda: parser.instantiate(chosen)[command]))
    elif command in GROUPS:
        call(GROUPS[command][1][settings.action], settings[settings.action])
    else:
        call(COMMANDS[command], settings)


def _check_once(arguments: list[str]) -> None:
    """Raises `InputError` for an option that is given twice: the first would be passed over."""
    given = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    twice = [word for number, word in enumerate(given) if word in given[:number]]
    if twice:
        raise InputError(
            f"{twice[0]} is given twice; give it once, several values one after the other where it takes several."
        )


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
