"""EpisodeLoader: the batch of any step, its pictures' numbers drawn for many steps at once."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from episodes.bank import ImageBank
from episodes.batch import EpisodeBatch, gather_batch
from episodes.devices import exact
from episodes.samplers.base import EpisodeIndices, EpisodeSampler

BLOCK = {"cpu": 2**17, "cuda": 2**20}  # pictures whose numbers are drawn at once: a draw's fixed cost is shared
MADE = 2**27  # bytes of pictures that one kernel makes at once, or a step's: as many launches less
Kernel = Callable[[ImageBank, EpisodeSampler, Tensor], EpisodeBatch]


def _kernel(bank: ImageBank, sampler: EpisodeSampler) -> Kernel | None:
    """The kernel that draws and gathers such batches in one go; None where torch does it in steps.

    On a GPU with Triton; `METAGVAE_COMPILED=0` asks for torch.
    """
    if bank.device.type != "cuda" or os.environ.get("METAGVAE_COMPILED", "1") == "0":
        return None
    try:
        from episodes import _triton
    except ImportError:
        return None
    if not _triton.fits(bank, sampler):
        return None
    try:  # it is compiled at its first call
        _triton.draw_and_gather(bank, sampler, torch.arange(1, device=bank.device))
    except Exception as error:  # whatever a compiler, a driver or a full disk says: torch can do it too
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(f"torch draws the episodes: Triton's kernel could not be made ({reason}).", stacklevel=3)
        return None
    return _triton.draw_and_gather


class EpisodeLoader:
    """``loader[step]`` is the uint8 batch of that step, on the loader's device.

    Picture numbers are drawn where the bank lies, in blocks of many steps: on an accelerator nothing passes
    through the host. On a GPU with Triton one kernel draws and gathers some steps' plain episodes, the same ones. Where
    batches cross from memory to an accelerator, threads gather those of the next steps into pinned memory meanwhile.
    With a bank mapped from a file larger than memory, ask for threads too. Any step may be asked for; asking in order
    is what is fast.

    Args:
        bank: the pictures.
        sampler: of that bank.
        tasks: episodes per step.
        device: where batches go, by any name of it; the bank's own if None.
        numbers: the episodes of a step, int64 ``[tasks]``; ``step * tasks`` and on by default.
        threads: how many gather ahead; 0 gathers when asked. None for 2 where batches cross devices, else 0.

    Example:
        >>> import torch
        >>> from episodes import EpisodeLoader, Episodes, EpisodeSampler, EpisodeShape, ImageBank
        >>> images = torch.randint(0, 256, (8, 6, 1, 28, 28), dtype=torch.uint8)
        >>> bank = ImageBank.from_classes([(f"class {i}", x) for i, x in enumerate(images)], dataset="noise")
        >>> sampler = EpisodeSampler(bank, Episodes(EpisodeShape(5, 1, 2)))
        >>> with EpisodeLoader(bank, sampler, tasks=4) as loader:
        ...     batch = loader[0].scaled()  # float32 in [0, 1]
        >>> batch.images.shape
        torch.Size([4, 5, 3, 1, 28, 28])
    """

    def __init__(
        self,
        bank: ImageBank,
        sampler: EpisodeSampler,
        tasks: int,
        device: torch.device | str | None = None,
        numbers: Callable[[int], Tensor] | None = None,
        threads: int | None = None,
    ) -> None:
        self.bank, self.sampler, self.tasks = bank, sampler, tasks
        self.device = exact(device) if device is not None else bank.device
        self._numbers = numbers
        if threads is None:
            threads = 2 if bank.device != self.device else 0
        pictures = tasks * sampler.way * (sampler.shot + sampler.query)
        self._steps = max(1, BLOCK.get(bank.device.type, 2**20) // pictures)
        self._block: tuple[int, Tensor] | None = None
        self._drawn: tuple[int, EpisodeIndices] | None = None
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "gather") if threads else None
        self._kernel = None if threads or self.device != bank.device else _kernel(bank, sampler)
        self._made: tuple[int, EpisodeBatch] | None = None
        self._at_once = max(1, min(self._steps, MADE // (pictures * math.prod(bank.image_shape))))
        self._steps -= self._steps % self._at_once
        self._ahead: dict[int, Future[EpisodeBatch]] = {}

    def __getitem__(self, step: int) -> EpisodeBatch:
        if self._kernel is not None:
            part, place = divmod(step, self._at_once)
            if self._made is None or self._made[0] != part:
                block, first = divmod(part * self._at_once, self._steps)
                numbers = self._of_block(block)[first * self.tasks : (first + self._at_once) * self.tasks]
                self._made = part, self._kernel(self.bank, self.sampler, numbers)
            return self._made[1].tasks_from(place * self.tasks, self.tasks)
        if self._pool is None:
            return gather_batch(self.bank, self._indices(step)).to(self.device)
        wanted = range(step, step + 2 * self._threads + 1)
        for number in [number for number in self._ahead if number not in wanted]:
            self._ahead.pop(number).cancel()
        for number in wanted:
            if number not in self._ahead:
                self._ahead[number] = self._pool.submit(self._gather, self._indices(number))
        return self._ahead.pop(step).result().to(self.device)

    def _gather(self, drawn: EpisodeIndices) -> EpisodeBatch:
        return gather_batch(self.bank, drawn, pin=self.device.type == "cuda")

    def _of_block(self, block: int) -> Tensor:
        """The episodes of a block's steps, int64 where the bank lies."""
        if self._block is None or self._block[0] != block:
            steps = range(block * self._steps, (block + 1) * self._steps)
            if self._numbers is None:
                numbers = torch.arange(steps.start * self.tasks, steps.stop * self.tasks)
            else:
                numbers = torch.cat([self._numbers(one) for one in steps])
            self._block = block, numbers.to(self.bank.device)
        return self._block[1]

    def _indices(self, step: int) -> EpisodeIndices:
        block, place = divmod(step, self._steps)
        if self._drawn is None or self._drawn[0] != block:
            self._drawn = block, self.sampler.draw(self._of_block(block))
        return self._drawn[1].tasks_from(place * self.tasks, self.tasks)

    def close(self) -> None:
        """Ends the threads; batches already given out stay good."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> EpisodeLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
