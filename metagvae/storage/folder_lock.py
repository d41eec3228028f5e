"""A lock that keeps two runs out of one folder."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

from episodes import InputError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """Held by one process at a time, and let go by the system when that process ends, however it ends.

    The lock is the kernel's (flock on the file ``lock``), so none can be left behind: the file stays, and says
    who held it last. On network file systems it reaches other machines where their servers lock files (NFS 4, NFS 3
    with lockd, Lustre mounted with ``flock``); with locks of each machine's own it does not, and where there are none
    a line on stderr says so.

    Raises:
        InputError: if another process holds it, naming that process.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "lock"
        self._handle: int | None = None
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(f"cannot write {path} ({error.strerror}); choose a folder you may write to.") from error
        try:
            self._take(handle, path)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle

    def _take(self, handle: int, path: Path) -> None:
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "this system has no flock")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            raise InputError(
                f"{path.parent} is in use by {holder}. Wait for it, stop it, or give another --run.folder."
            ) from error
        except OSError as error:
            print(
                f"{path.parent} cannot be locked ({error.strerror}); see to it that no other run uses it",
                file=sys.stderr,
            )
            return
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except OSError:  # a full disk: the lock holds without its holder's name
            pass

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
