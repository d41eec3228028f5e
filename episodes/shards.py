"""Pictures in several mapped files, whole classes each: what a bank holds where one file would be unwieldy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

SHARD_BYTES = 2**32


class Shards:
    """Stands where an `ImageBank` has one tensor: pictures are numbered through, and a gather may cross files.

    What is picked out of it is a plain tensor, of those pictures alone.

    Args:
        parts: uint8 ``[n, C, H, W]`` each, on the CPU, mapped or not.
    """

    dtype = torch.uint8
    device = torch.device("cpu")
    ndim = 4

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = tuple(parts)
        self._ends = torch.tensor([len(part) for part in self.parts]).cumsum(0)
        self.shape = torch.Size((int(self._ends[-1]), *self.parts[0].shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def __getitem__(self, chosen: int | slice | Tensor) -> Tensor:
        """uint8 ``[n, C, H, W]`` of a slice, of int64 picture numbers, or of a bool mask; ``[C, H, W]`` of a number."""
        if isinstance(chosen, int):
            return self.index_select(0, torch.tensor([chosen]))[0]
        if isinstance(chosen, slice):
            return self.index_select(0, torch.arange(*chosen.indices(len(self))))
        return self.index_select(0, chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen)

    def index_select(self, dim: int, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """As torch's, along the first axis: one gather from each file that ``rows`` touch.

        Raises:
            IndexError: if a row is not in ``[0, len)``, or another axis is asked for.
        """
        if dim != 0 or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self)):
            raise IndexError(f"rows along axis 0 must be in [0, {len(self)}); received axis {dim}, rows {rows}.")
        out = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8) if out is None else out
        places = torch.searchsorted(self._ends, rows, right=True)
        for place in places.unique().tolist():
            part, mine = self.parts[place], (places == place).nonzero().flatten()
            first = int(self._ends[place]) - len(part)
            out.index_copy_(0, mine, part.index_select(0, rows[mine] - first))
        return out

    def to(self, device: torch.device | str) -> Tensor | Shards:
        """Itself on the CPU; elsewhere one tensor."""
        return self if torch.device(device).type == "cpu" else torch.cat([part.to(device) for part in self.parts])


class ShardWriter:
    """Writes pictures, class after class, to ``images.npy``, ``images-1.npy`` ... in ``folder``; holds one class.

    Args:
        shard_bytes: a file that holds as much is followed by a new one.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._bytes = folder, shard_bytes
        self._file: BinaryIO | None = None
        self._shape: tuple[int, ...] = ()
        self.files = 0

    def add(self, images: Tensor) -> None:
        """The next class's pictures, uint8 ``[n, C, H, W]``."""
        pictures = np.ascontiguousarray(images.numpy())
        if self._file is None:
            self._file = shard_path(self._folder, self.files).open("wb")
            self.files += 1
            self._shape = (0, *pictures.shape[1:])
            self._head()
        self._file.write(pictures.data)
        self._shape = (self._shape[0] + len(pictures), *self._shape[1:])
        if np.prod(self._shape, dtype=np.int64) >= self._bytes:
            self._finish()

    def _head(self) -> None:
        """The header; numpy leaves room in it for the first axis to grow, so it can be written over."""
        assert self._file is not None
        self._file.seek(0)
        about = {"descr": "|u1", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, about)

    def _finish(self) -> None:
        if self._file is not None:
            with self._file:
                self._head()
            self._file = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None:
            self._finish()
        elif self._file is not None:
            self._file.close()


def shard_path(folder: Path, number: int) -> Path:
    return folder / (f"images-{number}.npy" if number else "images.npy")


def mapped(folder: Path, files: int) -> Tensor | Shards:
    """Files of a `ShardWriter`, mapped: the tensor of one file, or the shards of several."""
    # copy-on-write: torch wants writable memory, the files must stay as they are
    parts = [
        torch.from_numpy(np.load(shard_path(folder, number), mmap_mode="c", allow_pickle=False))
        for number in range(files)
    ]
    return parts[0] if files == 1 else Shards(parts)
