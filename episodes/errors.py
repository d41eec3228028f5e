"""The one error that a user's input can cause, and text that may be shown."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # of Persian, Indic scripts and emoji; they only join what stands beside them


def printable(text: object, lines: bool = True) -> str:
    """Text without what would steer a terminal or cannot be encoded: such characters become escapes like ``\\x1b``.

    Names of files and classes may hold anything; whatever is printed goes through here.

    Args:
        text: any object, as its `str`.
        lines: keep line breaks; without, they are escaped too, so that a name cannot pass for lines of its own.
    """

    def shown(c: str) -> str:
        kept = c.isprintable() or (lines and c == "\n") or c in _JOINERS or unicodedata.category(c) == "Zs"
        return c if kept else c.encode("unicode_escape").decode("ascii")

    return "".join(map(shown, str(text)))


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a setting, a combination of settings.

    The message says what was wrong, where, what was received, what is allowed and what to do.
    The command line turns it into that one message and exit status 2.

    Example:
        >>> from episodes import EpisodeShape, InputError
        >>> try:
        ...     EpisodeShape(way=1, shot=1)
        ... except InputError as error:
        ...     print(error)
        episodes need way >= 2; received way = 1.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))
