"""The one error that a user's input can cause."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a setting, a combination of settings.

    The message says what was wrong, where, what was received, what is allowed and what to do.
    The command line turns it into that one message and exit status 2.
    """
