"""Decoded banks on disk: decoded once, class by class, mapped into memory afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from episodes.bank import ImageBank
from episodes.datasets.cache_entry import Damaged, Decoding, drain, flush, read_entry, write_entry
from episodes.paths import expanded

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_FORMAT = 2
_FIELDS = ("dataset", "split", "polarity", "attributes", "notes", "factors", "image_attributes")
_UNFINISHED = ".tmp-"
_FORGOTTEN = 24 * 3600  # seconds after which an unfinished entry that no lock speaks for is removed
_swept: set[Path] = set()


def cache_folder() -> Path:
    """``$METAGVAE_CACHE``, or ``metagvae`` in the user's cache folder."""
    given = os.environ.get("METAGVAE_CACHE")
    if given:
        return expanded(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "metagvae"


def cached_classes(key: dict[str, Any], decode: Callable[[], Decoding]) -> ImageBank:
    """The bank that ``key`` names, from the cache or decoded into it, one class in memory at a time.

    Args:
        key: everything the bank depends on: data set, split, options, the source's fingerprint.
        decode: begins the decoding; asked again if the cache turns out to have no room.

    The entry is written beside, flushed, and renamed, so a crash or a power cut leaves none half-written; what a
    killed process leaves beside is removed by the next one. Where the cache cannot be written the bank is still
    returned, in memory. An entry that differs from its checksums is built again; one that cannot be read at the
    moment, or not by this user, stays as it is. Entries have the permissions that the umask gives: in a shared
    cache the first user decodes, the others read.
    """
    text = json.dumps({**key, "format": _FORMAT}, sort_keys=True, default=str)
    root = cache_folder()
    entry = f"{key.get('dataset', 'bank')}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"
    # the second is this user's own, where another's stands in the first and cannot be read or mended
    places = [root / entry, root / f"{entry}-user{getattr(os, 'getuid', int)()}"]
    if root not in _swept:
        _sweep(root)
    bank = _stored(places, text)
    if bank is None and _fill(root, places, text, decode):
        bank = _stored(places, text)
    return _in_memory(decode()) if bank is None else bank


def cached_bank(key: dict[str, Any], build: Callable[[], ImageBank]) -> ImageBank:
    """`cached_classes` for a bank that is built whole, in memory; once built, it is returned as it is."""
    built: list[ImageBank] = []

    def decode() -> Decoding:
        if not built:
            built.append(build())
        return _classes(built[0])

    bank = cached_classes(key, decode)
    return built[0] if built else bank


def _classes(bank: ImageBank) -> Decoding:
    for number, name in enumerate(bank.class_names):
        yield name, bank.images[int(bank.offsets[number]) : int(bank.offsets[number + 1])]
    return {name: getattr(bank, name) for name in _FIELDS}


def _in_memory(decoding: Decoding) -> ImageBank:
    classes: list[tuple[str, Tensor]] = []
    fields = drain(decoding, lambda name, images: classes.append((name, images)))
    return ImageBank.from_classes(classes, **fields)


def _stored(places: list[Path], text: str) -> ImageBank | None:
    """The bank of the first entry that is whole; a damaged one is removed."""
    for place in places:
        if os.path.lexists(place):
            try:
                return read_entry(place, text)
            except Damaged:
                _remove(place)
            except OSError:  # of the moment, or another user's
                continue
    return None


def _fill(root: Path, places: list[Path], text: str, decode: Callable[[], Decoding]) -> bool:
    """Decodes into the cache; False if it cannot be written."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        with _beside(root) as folder:
            write_entry(decode(), folder, text)
            for place in places:
                try:
                    folder.rename(place)
                    flush(root)
                    break
                except OSError:  # another process was first, or another user's stands there
                    if _stored([place], text) is not None:
                        break
            return True
    except OSError:  # no room
        return False


@contextmanager
def _beside(root: Path) -> Iterator[Path]:
    """A folder to write an entry to, locked by this process for as long as it lives."""
    folder = root / f"{_UNFINISHED}{socket.gethostname()}~{os.getpid()}~{secrets.token_hex(8)}"
    folder.mkdir()  # by the umask, as mkdtemp's would shut everybody else out of a shared cache
    handle = -1
    try:
        if fcntl is not None:
            handle = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks; age decides there
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        if handle >= 0:
            os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Removes what decoders left unfinished when they were killed."""
    _swept.add(root)
    try:
        left = [path for path in root.iterdir() if path.name.startswith(_UNFINISHED)]
    except OSError:  # not there yet
        return
    for path in left:
        if _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(path: Path) -> bool:
    """Whether the process that made it is gone: the kernel lets its lock go, however it ended."""
    try:
        old = time.time() - path.stat().st_mtime > _FORGOTTEN
        if fcntl is None or path.name[len(_UNFINISHED) :].split("~")[0] != socket.gethostname():
            return old  # another machine's lock may not reach here
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return old
        finally:
            os.close(handle)
        return True
    except OSError:  # gone meanwhile, or another user's
        return False


def _remove(place: Path) -> None:
    """Takes a damaged entry away at once, whatever kind of thing it is; another user's may have to stay."""
    aside = place.with_name(f"{_UNFINISHED}{socket.gethostname()}~{os.getpid()}~{secrets.token_hex(8)}")
    try:
        place.rename(aside)
        if aside.is_symlink() or not aside.is_dir():
            aside.unlink()
        else:
            shutil.rmtree(aside)
    except OSError:
        pass
