"""Several processes that work as one: the ranks that torchrun starts, on gloo (CPU) and NCCL (GPU).

A step's batch is split over the ranks; each takes the gradient of its part of the loss, and one sum over the ranks
gives every rank the whole batch's. What a layer or a loss term needs of the whole batch it asks for with the
functions of `metagvae.compute.batch_statistics`. So the result is one process's, to rounding. DistributedDataParallel
has no place here: it acts on a module's forward pass, and MAML's inner loop makes none.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from episodes import InputError
from episodes.batch_share import Share
from episodes.errors import printable
from episodes.untrusted.torch_files import load_torch

TIMEOUT = timedelta(minutes=10)  # for ranks to meet; a rank that hangs longer than that stops the job
DECODING = timedelta(days=1)  # while the first process of a host fills the cache

Content = TypeVar("Content")


def _number(variable: str, default: int | None = None, least: int = 0) -> int:
    """A whole number of the environment; ``default`` if the variable is not set or empty.

    Raises:
        InputError: if it is no whole number, below ``least``, or there is neither it nor a default.
    """
    text = os.environ.get(variable, "")
    if not text and default is not None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= least):
        raise InputError(
            f"the environment variable {variable} must be a whole number of at least {least}, as torchrun sets it; "
            f"received {text[:100]!r}. Unset WORLD_SIZE to work in one process."
        )
    return int(text)


class PeerLost(RuntimeError):
    """Another process of the job ended, or did not answer within `TIMEOUT`."""


@contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises, whatever the backend
        raise PeerLost((str(error).splitlines() or [""])[0]) from error


# Torch 2.4 ends gloo's group with the interpreter's lock held, and waits for its threads; one that is still letting go
# of a tensor no Python name holds any more needs that lock, for ever. So the last few are held until after the end.
_sent: deque[Tensor] = deque(maxlen=16)


def _all_reduce(values: Tensor) -> None:
    """Sums over the ranks, in place."""
    _sent.append(values.detach())  # not the graph that the values may become part of
    with _exchange():
        dist.all_reduce(_sent[-1])


class _Sum(torch.autograd.Function):
    """The sum over the ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        _all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(slope)
        return total


class Ranks:
    """The processes of a job, as one of them sees them; `ranks` gives it. A process by itself is rank 0 of 1.

    Every method with an exchange must be called by all ranks in the same order.

    Args:
        rank, size: this process's number and how many there are.
        store: what they share without meeting; None of a process by itself.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: dist.Store | None = None) -> None:
        self.rank, self.size, self.store = rank, size, store
        self._turns = 0

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def share(self, total: int, setting: str) -> Share:
        """This rank's part of a step's ``total`` items; parts differ by one item at most.

        Args:
            setting: the config's name for ``total``, for the error.

        Raises:
            InputError: if there are fewer items than ranks.
        """
        if total < self.size:
            raise InputError(
                f"{setting} is {total}, and {self.size} processes split that many between them: each needs at least "
                f"one. Set {setting} to {self.size} or more (best a multiple of {self.size}), or start fewer processes."
            )
        first, last = (total * rank // self.size for rank in (self.rank, self.rank + 1))
        return Share(first, last - first, total)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the ranks of tensors of one shape; differentiable, twice too."""
        return values if self.size == 1 else _Sum.apply(values)

    def reduce(self, weights: Sequence[Tensor], terms: dict[str, Tensor], share: Share) -> dict[str, Tensor]:
        """Sums the weights' gradients over the ranks, in place, and gives the whole batch's loss terms: one exchange.

        Args:
            weights: with the gradients of the loss times ``share.weight``; None where the loss has none, which is
                then so on every rank.
            terms: scalars, this share's means.
        """
        if self.size == 1:
            return terms
        slopes = [weight.grad for weight in weights if weight.grad is not None]
        values = share.weight * torch.stack([term.detach().float() for term in terms.values()])
        flat = torch.cat([*(slope.flatten() for slope in slopes), values])
        _all_reduce(flat)
        *pieces, values = flat.split([slope.numel() for slope in slopes] + [len(terms)])
        for slope, piece in zip(slopes, pieces, strict=True):
            slope.copy_(piece.view(slope.shape))
        return dict(zip(terms, values.unbind(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether it is set on some rank. On the CPU, so that no GPU is waited for."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(int(flag))))

    def from_main(self, content: Content) -> Content:
        """The value of rank 0, on every rank: tensors (which arrive on the CPU) and plain containers; no pickle."""
        if self.size == 1:
            return content
        buffer = io.BytesIO()
        if self.main:
            torch.save(content, buffer)
        length = self.sum(torch.tensor(buffer.getbuffer().nbytes))
        data = torch.zeros(int(length), dtype=torch.uint8)
        if self.main:
            data.copy_(torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8))
        _sent.append(data)
        with _exchange():
            dist.broadcast(data, 0)
        return content if self.main else load_torch(io.BytesIO(data.numpy().tobytes()))

    def split(self, count: int, chunk: int, work: Callable[[int, int], Tensor], device: torch.device) -> Tensor:
        """``work(start, stop)`` for each ``chunk`` of ``range(count)``, each done by one rank, all rows on all ranks.

        The chunks are those of one process, so their numbers are the same to the last bit.

        Args:
            work: gives a tensor of ``stop - start`` rows on ``device``.
        """
        done = {
            start: work(start, min(start + chunk, count))
            for number, start in enumerate(range(0, count, chunk))
            if number % self.size == self.rank
        }
        if self.size == 1:
            return torch.cat(list(done.values()))
        like = self.from_main(done[0][:0].cpu() if self.main else torch.empty(0))
        rows = torch.zeros(count, *like.shape[1:], dtype=like.dtype, device=device)
        for start, part in done.items():
            rows[start : start + len(part)] = part
        return self.sum(rows)

    @contextmanager
    def first_here(self) -> Iterator[None]:
        """The first process of each host does what is inside before the others there, and leaves them a full cache."""
        self._turns += 1
        key = f"first/{os.environ.get('GROUP_RANK', '0')}/{self._turns}"
        if self.store is None:
            yield
        elif _number("LOCAL_RANK", self.rank) == 0:
            try:
                yield
            finally:
                self.store.set(key, "done")
        else:
            self.store.wait([key], DECODING)
            yield

    def tell(self, message: str) -> None:
        """Prints a message on stderr, once if several ranks have the same to say."""
        if self.store is not None:
            try:
                self.store.add("told", 1)
                if self.store.add(f"told/{hashlib.sha256(message.encode()).hexdigest()}", 1) > 1:
                    return
            except RuntimeError:  # the launcher is gone: say it rather twice than never
                pass
        with suppress(OSError):  # of a terminal that is gone
            print(printable(message), file=sys.stderr, flush=True)

    def tell_lost(self, error: PeerLost) -> None:
        """Says that another rank is gone, if that one did not say itself why."""
        try:
            told = self.store is not None and self.store.add("told", 0) > 0
        except RuntimeError:
            told = False
        if not told:
            self.tell(
                f"metagvae: another of the {self.size} processes ended without a word, or did not answer for "
                f"{TIMEOUT.seconds // 60} minutes; stopping. The last state is intact: to go on, give the same command "
                "with --run.resume auto. torchrun's report names the process."
            )
        print(f"rank {self.rank}: {error}", file=sys.stderr, flush=True)

    def check_device(self, device: torch.device) -> None:
        """Raises `InputError` if this rank has no GPU of its own where it is to compute on one."""
        if self.size == 1 or device.type != "cuda":
            return
        local, there = _number("LOCAL_RANK", self.rank), torch.cuda.device_count()
        if device.index is not None or local >= there:
            raise InputError(
                f"each of several processes takes a GPU of its own: leave run.device at 'auto' (received {device}) and "
                f"start at most one process per GPU (this host has {there}; this is process {local} on it, from 0)."
            )

    def check_layers(self, module: nn.Module) -> None:
        """Raises `InputError` if a layer takes statistics of its own process's pictures where all ranks' are meant."""
        layer = next((layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training), None)
        if self.size > 1 and layer is not None:
            raise InputError(
                f"the encoder has torch's own {type(layer).__name__}, whose statistics {self.size} processes do not "
                "share. Train it in one process, leave it frozen (mode frozen), or take an encoder of this package."
            )


_present = Ranks()


def ranks() -> Ranks:
    """The processes that this one works with."""
    return _present


def join() -> None:
    """Joins the processes that torchrun started with this one, if it was started by torchrun.

    Takes the GPU whose number is LOCAL_RANK, if there is one.

    Raises:
        InputError: if a variable of torchrun's is no whole number.
        PeerLost: if they do not all arrive within `TIMEOUT`.
    """
    global _present
    if _number("WORLD_SIZE", 1, least=1) == 1 or "MASTER_ADDR" not in os.environ or _present.size > 1:
        return
    for variable in ("RANK", "MASTER_PORT"):
        _number(variable)  # torch reads these itself
    local = _number("LOCAL_RANK", 0)
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    with _exchange():
        store, rank, size = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        store = dist.PrefixStore(f"metagvae/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(
            backend, store=dist.PrefixStore("group", store), rank=rank, world_size=size, timeout=TIMEOUT
        )
    _present = Ranks(rank, size, dist.PrefixStore("ranks", store))


def leave() -> None:
    """Parts from the others at the end of the work."""
    global _present
    if _present.size > 1:
        dist.destroy_process_group()
        _sent.clear()
        _present = Ranks()
