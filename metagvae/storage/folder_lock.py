"""A lock that keeps two runs out of one folder."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from pathlib import Path

from episodes import InputError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class FolderLock:
    """Held by one process at a time, and let go by the system when that process ends, however it ends.

    The lock is the kernel's (flock on the file ``lock`` and, where the system locks folders, on the folder, so that
    nothing is lost with the file), so none can be left behind: the file stays, and says who held it last. On network
    file systems it reaches other machines where their servers lock files (NFS 4, NFS 3 with lockd, Lustre mounted with
    ``flock``); with locks of each machine's own it does not, and where there are none a line on stderr says so.

    Raises:
        InputError: if another process holds it, naming that process.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "lock"
        self._handles: list[int] = []
        try:
            # never through a link, nor into a pipe: the folder may be a stranger's
            handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        except OSError as error:
            raise InputError(f"cannot write {path} ({error.strerror}); choose a folder you may write to.") from error
        self._handles.append(handle)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InputError(f"{path} is not a regular file; remove it.")
            self._take(handle, path)
            self._take_folder(folder, handle)
            self._sign(handle)
        except BaseException:
            self.release()
            raise

    def _take(self, handle: int, path: Path) -> None:
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "this system has no flock")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _in_use(path.parent, handle) from error
        except OSError as error:
            print(
                f"{path.parent} cannot be locked ({error.strerror}); see to it that no other run uses it",
                file=sys.stderr,
            )

    def _take_folder(self, folder: Path, file: int) -> None:
        """Locks the folder too: a run whose file ``lock`` was deleted still holds that."""
        if fcntl is None:
            return
        try:
            handle = os.open(folder, os.O_RDONLY)
        except OSError:  # a system that opens no folders
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise _in_use(folder, file) from error
        except OSError:  # a file system that locks files alone, such as NFS
            os.close(handle)
        else:
            self._handles.append(handle)

    @staticmethod
    def _sign(handle: int) -> None:
        if os.fstat(handle).st_nlink > 1:  # a file under another name too, where its words may matter
            return
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except OSError:  # a full disk: the lock holds without its holder's name
            pass

    def release(self) -> None:
        while self._handles:
            os.close(self._handles.pop())


def _in_use(folder: Path, handle: int) -> InputError:
    holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
    return InputError(f"{folder} is in use by {holder}. Wait for it, stop it, or give another --run.folder.")
