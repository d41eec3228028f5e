"""Arrays of numbers out of an ``.npz`` that a stranger may have written."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np

from episodes.errors import InputError
from episodes.untrusted.zip_files import ZipFiles

MAX_ARRAY_BYTES = 64 * 2**20  # MNIST's largest has 47 million


def read_npz(path: Path, *names: str) -> list[np.ndarray]:
    """The arrays of these names.

    Members are stored or deflated, as `numpy.savez` writes them; whatever unpacks without a limit, or holds anything
    but numbers, is refused, and a header is compared with what follows it before memory is set aside.

    Raises:
        InputError: if the file or an array is missing, damaged, too large or of another kind.
        ReadFault: if the disk fails.
    """
    if not path.is_file():  # a pipe would be waited on for ever
        raise InputError(f"{path} is no regular file.")
    archive = ZipFiles(path)
    try:
        return [_array(archive, f"{name}.npy") for name in names]
    finally:
        archive.close()


def _array(archive: ZipFiles, name: str) -> np.ndarray:
    if name not in archive.members:
        held = ", ".join(sorted(archive.members)[:10])
        raise InputError(f"{name} is missing in {archive.path}; it holds {held[:300] or 'nothing'}.")
    data = archive.read(name, MAX_ARRAY_BYTES + 1)
    if len(data) > MAX_ARRAY_BYTES:
        raise InputError(f"{name} in {archive.path} has more than {MAX_ARRAY_BYTES:,} bytes.")
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file)
        if dtype.hasobject or dtype.names is not None or min(shape, default=0) < 0:
            raise ValueError(f"an array of {dtype}")
        count = math.prod(shape)
        if count * dtype.itemsize != len(data) - file.tell():
            raise ValueError(f"{len(data) - file.tell():,} bytes for an array of {count:,} times {dtype}")
        flat = np.frombuffer(data, dtype, count, file.tell()) if count else np.empty(0, dtype)
        array: np.ndarray = flat.reshape(shape, order="F" if fortran else "C").copy()
        return array
    except Exception as error:  # numpy raises many kinds for damaged headers
        raise InputError(f"{name} in {archive.path} is no array of numbers ({str(error)[:300]}).") from error
