"""Counter-based random numbers: an integer hash evaluated on the device that needs the draw.

A draw is a pure function of its key, so nothing has to be saved to resume, no order matters and
every device gives the same answer. The hash is the finaliser of SplitMix64 (Steele, Lea & Flood,
"Fast splittable pseudorandom number generators", OOPSLA 2014), in wrapping 64-bit integers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from episodes.errors import InputError


def _signed(value: int) -> int:
    """The 64-bit pattern ``value`` as the signed integer that torch.int64 holds."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


GOLDEN = _signed(0x9E3779B97F4A7C15)
MULTIPLY_1 = _signed(0xBF58476D1CE4E5B9)
MULTIPLY_2 = _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's own ``>>`` on int64 copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser, elementwise on int64: a bijection whose output bits look independent."""
    x = (x ^ _shift_right(x, 30)) * MULTIPLY_1
    x = (x ^ _shift_right(x, 27)) * MULTIPLY_2
    return x ^ _shift_right(x, 31)


def fold(key: Tensor, value: Tensor | int) -> Tensor:
    """A new key from ``key`` and a counter; both int64, broadcast against each other."""
    step = (value + 1) * GOLDEN
    return mix(key + (_signed(step) if isinstance(step, int) else step))


def below(bits: Tensor, limit: Tensor | int) -> Tensor:
    """Integers in [0, limit) from hashed ``bits``, by multiply and shift of the top 32 bits.

    ``limit`` is at most 2**31; a value's probability is off by at most limit / 2**32 of itself.
    """
    return (_shift_right(bits, 32) * limit) >> 32


def distinct(key: Tensor, limit: Tensor | int, count: int) -> Tensor:
    """``count`` distinct integers of [0, limit), every ordered choice equally likely.

    Floyd's sampling (Bentley & Floyd, "A sample of brilliance", CACM 1987) chooses the set, a sort by
    hashed keys its order. The cost depends on ``count`` alone, never on ``limit``.

    Args:
        key: int64 of any shape ``[...]``, one key per draw.
        limit: int or int64 broadcastable to ``[...]``, at least ``count`` everywhere (not checked here).
        count: how many.

    Returns:
        int64 ``[..., count]``.
    """
    steps = torch.arange(count, device=key.device)
    bits = fold(key.unsqueeze(-1), steps)
    top = (limit.unsqueeze(-1) if isinstance(limit, Tensor) else limit) - count + steps
    draws = below(bits, top + 1)
    top = top.expand_as(draws)
    chosen = torch.empty_like(draws)
    for step in range(count):
        draw = draws[..., step]
        if step:
            taken = (chosen[..., :step] == draw.unsqueeze(-1)).any(-1)
            draw = torch.where(taken, top[..., step], draw)
        chosen[..., step] = draw
    order = fold(key.unsqueeze(-1), steps + count).argsort(-1)
    return chosen.gather(-1, order)


def check_seed(seed: int, name: str, least: int = -(2**63), most: int = 2**63 - 1) -> None:
    """Raises `InputError` for a seed that 64 bits cannot hold, or whose derived ones they cannot."""
    if not least <= seed <= most:
        raise InputError(f"{name} must be between {least} and {most}; received {str(seed)[:100]}.")


def seed_for(seed: int, *counters: int) -> int:
    """A 63-bit seed for torch's own generators, a pure function of ``seed`` and the counters."""
    bits = (1 << 64) - 1
    key = seed & bits
    for counter in counters:  # `fold`, in Python's own integers: a seed is for the host
        key = (key + (counter + 1) * GOLDEN) & bits
        key = ((key ^ (key >> 30)) * MULTIPLY_1) & bits
        key = ((key ^ (key >> 27)) * MULTIPLY_2) & bits
        key ^= key >> 31
    return key & ((1 << 63) - 1)
