"""Running a command: the status it ends in, and one sentence for what stopped it."""

from __future__ import annotations

import sys

from episodes.errors import InputError


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
    """Runs a command. Returns 0, 2 for unusable input, 130 for an interrupted run; prints one message."""
    try:
        run(arguments)
    except InputError as error:
        print(f"metagvae: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("metagvae: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        from metagvae.loop import Interrupted

        if isinstance(error, Interrupted):
            print(f"metagvae: {error}", file=sys.stderr)
            return 130
        raise
    return 0
