"""Running a command: the status it ends in, and one sentence for what stopped it."""

from __future__ import annotations

import sys

from episodes.errors import InputError
from metagvae.files import OUT_OF_DISK
from metagvae.stopping import STOPPED, Interrupted


def run(arguments: list[str] | None) -> None:
    """Parses the arguments and calls the command's function."""
    from metagvae.cli.commands import COMMANDS, CONFIGURED, GROUPS
    from metagvae.cli.parser import build_parser

    parser = build_parser()
    chosen = parser.parse_args(arguments)
    command, settings = chosen.command, chosen[chosen.command]
    if command in CONFIGURED:
        cls, work = CONFIGURED[command]
        values = vars(parser.instantiate(chosen)[command])
        work(cls(**{key: value for key, value in values.items() if key != "config"}))
    elif command in GROUPS:
        GROUPS[command][1][settings.action](**vars(settings[settings.action]))
    else:
        COMMANDS[command](**vars(settings))


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and prints one message if it cannot end well.

    Returns 0; 2 for unusable input or a full disk; 75 for a run that was asked to stop, its state written; 130 for
    what was stopped at once.
    """
    try:
        run(arguments)
    except InputError as error:
        print(f"metagvae: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("metagvae: stopped", file=sys.stderr)
        return 130
    except Interrupted as error:
        print(f"metagvae: {error}", file=sys.stderr)
        return STOPPED
    except OSError as error:  # of what no other message covers, such as a figure
        if error.errno not in OUT_OF_DISK:
            raise
        print(
            f"metagvae: no room for {error.filename or 'a file'} ({error.strerror}); make room first", file=sys.stderr
        )
        return 2
    return 0
