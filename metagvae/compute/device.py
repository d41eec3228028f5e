"""Device, precision and memory layout, chosen once per run."""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import ImageBank, InputError
from episodes.devices import exact
from metagvae.compute.processes import ranks


def _cpu_computes_bfloat16() -> bool:
    """Whether the processor has instructions for it; without them torch emulates, slower than float32."""
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        function = getattr(torch.cpu, probe, None)
        if function is not None and function():
            return True
    return False


@cache
def _bfloat16_pays() -> bool:
    """Whether this processor convolves in bfloat16 at least as fast as in float32, give or take.

    Measured once, in a moment: instructions alone do not say it, as libraries and virtual machines differ. The
    margin is wide, so that a run and its resumption do not choose differently by chance.
    """
    if not _cpu_computes_bfloat16():
        return False
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        images = channels_last(torch.ones(64, 64, 14, 14, dtype=dtype))
        weight = channels_last(torch.ones(64, 64, 3, 3, dtype=dtype))
        laps = []
        for _ in range(6):
            began = time.perf_counter()
            F.conv2d(images, weight, padding=1)
            laps.append(time.perf_counter() - began)
        seconds[dtype] = min(laps)
    return seconds[torch.bfloat16] < 1.5 * seconds[torch.float32]


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is worth its rounding there; a GPU that emulates it is slower than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _bfloat16_pays()


def keep_freed_memory() -> None:
    """Tells glibc to keep large freed blocks for the next step instead of handing each back to the system.

    A step's tensors are of the same sizes as the last one's; getting their pages anew takes a third of a Conv-4
    step on two cores. The process then keeps its peak of memory. Elsewhere than on glibc nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no C library to ask, or not glibc
        return
    trim_threshold, mmap_threshold, arena_max, largest = -1, -3, -8, 2**31 - 1
    mallopt(arena_max, torch.get_num_threads())  # one for each thread that adapts tasks: in one place they would queue
    mallopt(trim_threshold, largest)
    if not mallopt(mmap_threshold, largest):  # older glibc takes no more than this
        mallopt(mmap_threshold, 32 * 2**20)


@contextmanager
def deterministic_algorithms(on: bool) -> Iterator[None]:
    """Within it, if ``on``, torch takes kernels that give the same bits each time.

    Raises:
        InputError: where there is no such kernel: on CUDA, the backward pass of deformable PCA's warp.
    """
    if not on:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first call
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise InputError(
            f"run.deterministic is on, and {str(error).splitlines()[0]} Leave it off, or train on the CPU."
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def uncompiled() -> AbstractContextManager[object]:
    """The context in which compiled networks run as they were written: for shapes that come seldom.

    Each new shape would be compiled, for seconds, where it runs a few times. Before torch 2.6 they are.
    """
    stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if stance is None else stance("force_eager")


def channels_last(x: Tensor) -> Tensor:
    """``[B, C, H, W]`` with the channels innermost in memory.

    A tensor of one channel fits both layouts at once; torch then takes the other one, and the first layer of
    a Conv-4 pools ten times slower. Strides that only channels-last has settle it.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = x.shape
    return x.as_strided(x.shape, (channels * height * width, 1, width * channels, channels))


PRECISIONS = ("auto", "float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class Device:
    """Where and in what precision a run computes.

    Attributes:
        device: torch's device, with its number (`episodes.devices.exact`) if `choose` chose it.
        autocast: run networks in bfloat16.
        tf32: let a GPU round the factors of float32 products and convolutions to 10 bits (NVIDIA's TF32).
    """

    device: torch.device
    autocast: bool
    tf32: bool = False

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto") -> Device:
        """``auto`` takes CUDA if there is one, and bfloat16 where the processor computes in it.

        ``float32`` is float32: torch by itself lets a GPU's convolutions round their factors to 10 bits, which leaves
        little of MAML's outer gradient after five inner steps (a cosine of 0.37). ``tf32`` asks for that.

        Raises:
            InputError: if a named device is not there, does not compute so, or there is no such precision.
        """
        if precision not in PRECISIONS:
            raise InputError(f"the precision must be one of {', '.join(PRECISIONS)}; received {precision!r}.")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"the device {device!r} cannot be used ({first}); 'cpu' always can.") from error
        ranks().check_device(chosen)
        chosen = exact(chosen)  # of several ranks, the GPU that this one took
        if chosen.type == "cpu":
            keep_freed_memory()
        if precision == "tf32" and chosen.type != "cuda":
            raise InputError(f"the precision 'tf32' is of NVIDIA's GPUs; received the device {chosen}. Use 'float32'.")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        # measured, so ranks could find differently: rank 0's answer is for all
        able = ranks().from_main(_computes_bfloat16(chosen))
        return cls(chosen, precision == "bfloat16" or (precision == "auto" and able), precision == "tf32")

    @property
    def precision_name(self) -> str:
        return "bfloat16" if self.autocast else "tf32" if self.tf32 else "float32"

    @property
    def description(self) -> str:
        return f"{self.device}, {self.precision_name}, channels last"

    def precision(self) -> AbstractContextManager[object]:
        """The context in which networks run."""
        if not self.autocast:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def place(self, module: nn.Module) -> None:
        """Moves a module here, convolution weights channels-last."""
        module.to(self.device)
        for parameter in module.parameters():
            if parameter.ndim == 4:
                parameter.data = channels_last(parameter.data)

    def compile(self, encoder: nn.Module, captured: bool = False) -> None:
        """Runs the encoder's backbone through torch.compile, in place; its weights and files stay what they are.

        Args:
            captured: whether the whole step will be captured in a CUDA graph; torch.compile then keeps none of its own.

        Raises:
            InputError: if that needs a C++ compiler and there is none.
        """
        backbone = getattr(encoder, "backbone", encoder)
        if self.device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
            raise InputError("optim.compile needs a C++ compiler (g++, or CXX names one); leave it off without.")
        own_graphs = self.device.type == "cuda" and not captured
        backbone.compile(dynamic=False, mode="reduce-overhead" if own_graphs else "default")

    def hold(self, bank: ImageBank) -> ImageBank:
        """The bank on this device if it takes at most half of its free memory, else as it is."""
        if self.device.type == "cuda" and bank.images.nbytes > torch.cuda.mem_get_info(self.device)[0] // 2:
            return bank
        return bank.to(self.device)

    @staticmethod
    def layout(images: Tensor) -> Tensor:
        """Pictures ``[B, C, H, W]`` in the layout that convolutions like here."""
        return channels_last(images)
