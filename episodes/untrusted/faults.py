"""An error of the moment: the disk, not the file."""

from __future__ import annotations

import errno

from episodes.errors import InputError


class ReadFault(InputError):
    """A file could not be read, which says nothing about what it holds.

    A failing disk, too many open files, or a network drive that went away.

    Whoever leaves out what is damaged must not leave this out: what is built without it would be kept.
    """

    def __init__(self, where: object, error: OSError) -> None:
        forbidden = error.errno in (errno.EACCES, errno.EPERM)
        super().__init__(
            f"{where} may not be read ({error.strerror}); ask its owner for the right to, or take it out."
            if forbidden
            else f"{where} could not be read just now ({error.strerror or error}); nothing was kept. Try again; if it "
            "stays so, the disk may be failing: take the file out, or fetch it again."
        )
