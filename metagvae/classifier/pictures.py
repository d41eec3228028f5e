"""Pictures of any kind at an encoder's size, and the scale that turns their numbers into brightness."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from episodes import InputError

# What a picture's numbers are. Of UNIT and EIGHT the scale is known; FILE_DEEP has one of its own if need be.
UNIT, EIGHT, EIGHT_ARRAY, DEEP, NUMBERS = range(5)

_BEYOND = 2.0  # a float above it is on no scale of [0, 1]
_FAR = 10.0  # a scale whose white is above it, and numbers in [0, 1], are two scales
_DIM = 31.0  # 8-bit pictures none of which is brighter are of 1 to 5 bits


@dataclass(frozen=True)
class Scale:
    """How numbers become brightness: ``low`` and below is 0, ``high`` and above is 1, then perhaps inverted.

    Args:
        low, high: the numbers of black and white.
        invert: turn bright into dark.
        eight: what is white in pictures of 8 bits.
        given: ``low`` and ``high`` were set by hand, and hold for arrays of 8 bits too.
        seen: ``low`` and ``high`` were set by hand or by numbers seen; else nothing but 8-bit pictures was.
    """

    low: float = 0.0
    high: float = 1.0
    invert: bool = False
    eight: float = 255.0
    given: bool = False
    seen: bool = True


@dataclass(frozen=True)
class Pictures:
    """Pictures at an encoder's size, their numbers still on the scales they came in.

    Args:
        images: float32 ``[n, channels, size, size]``; of partly transparent pictures the colours times alpha.
        clear: float32 ``[n, 1, size, size]``, how transparent, 0 to 1; None if nothing is.
        kinds: int64 ``[n]``: booleans and 1-bit pictures, 8-bit pictures and files, 8-bit arrays, files of 16 or 32
            bits, other numbers.
        lows, highs: float64 ``[n]``, the smallest and largest number received of each.
        whole: bool ``[n]``, whether all its numbers are whole.
        ranges: float64 ``[n, 2]``, black and white of each of the files of 16 or 32 bits by itself.
        shape: of one picture as given, if all came as arrays of one shape.
    """

    images: Tensor
    clear: Tensor | None
    kinds: Tensor
    lows: Tensor
    highs: Tensor
    whole: Tensor
    ranges: Tensor
    shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def join(cls, parts: Sequence[Pictures]) -> Pictures:
        """Several as one."""

        def clear(part: Pictures) -> Tensor:
            return part.images.new_zeros(len(part), 1, *part.images.shape[2:]) if part.clear is None else part.clear

        shapes = {part.shape for part in parts}
        return cls(
            torch.cat([part.images for part in parts]),
            None if all(part.clear is None for part in parts) else torch.cat([clear(part) for part in parts]),
            torch.cat([part.kinds for part in parts]),
            torch.cat([part.lows for part in parts]),
            torch.cat([part.highs for part in parts]),
            torch.cat([part.whole for part in parts]),
            torch.cat([part.ranges for part in parts]),
            shapes.pop() if len(shapes) == 1 else None,
        )

    def scale(self, value_range: tuple[float, float] | None, invert: bool | None) -> Scale:
        """The scale that these pictures, as the first ones seen, decide for all later ones.

        Args:
            value_range: the numbers of black and white. None takes [0, 1] if the numbers lie in it, [0, 255] if their
                largest is between 128 and 255, else their smallest and largest.
            invert: None inverts if the pictures' borders are mostly bright: ink on paper.
        """
        numbers = (self.kinds == NUMBERS) | (self.kinds == DEEP)
        eight = (self.kinds == EIGHT) | ((self.kinds == EIGHT_ARRAY) & (value_range is None))
        low, high, white = 0.0, 1.0, 255.0
        if value_range is not None:
            low, high = map(float, value_range)
        elif numbers.any():
            low, high = float(self.lows[numbers].min()), float(self.highs[numbers].max())
            if low >= 0 and (high <= 1 or 128 <= high <= 255):
                low, high = 0.0, 1.0 if high <= 1 else 255.0
        if eight.any() and self.lows[eight].min() < self.highs[eight].max() <= _DIM:
            white = float(self.highs[eight].max())
            warnings.warn(
                f"no number of the 8-bit pictures is above {white:g}; {white:g} is taken for white, instead of 255. "
                "Set value_range if it is another number.",
                stacklevel=2,
            )
        found = Scale(low, high, False, white, value_range is not None, value_range is not None or bool(numbers.any()))
        if invert is None:
            upright = self._brightness(found).mean(1)
            border = torch.cat([upright[:, 0], upright[:, -1], upright[:, :, 0], upright[:, :, -1]], 1)
            invert = bool(border.median() > 0.5)
        return Scale(low, high, invert, white, found.given, found.seen)

    def on(self, scale: Scale) -> Tensor:
        """Brightness in [0, 1], ``[n, channels, size, size]``.

        Raises:
            InputError: if the numbers are plainly on another scale than the one decided.
        """
        self._check(scale)
        images = self._brightness(scale)
        return 1 - images if scale.invert else images

    def _brightness(self, scale: Scale) -> Tensor:
        low, high = self._ends(scale)
        images = self.images
        if self.clear is not None:  # transparent becomes white, as in files
            images = images + self.clear * high
        return ((images - low) / (high - low).where(high > low, torch.ones_like(high))).clamp(0, 1)

    def _ends(self, scale: Scale) -> tuple[Tensor, Tensor]:
        """The numbers of black and white of each picture, both ``[n, 1, 1, 1]``."""
        low, high = torch.zeros(len(self)), torch.ones(len(self))
        eight = self.kinds == EIGHT
        numbers = self.kinds == NUMBERS
        deep = self.kinds == DEEP
        (numbers if scale.given else eight).logical_or_(self.kinds == EIGHT_ARRAY)
        if scale.seen:
            numbers |= deep
        else:
            low[deep], high[deep] = self.ranges[deep].float().unbind(1)
        high[eight] = scale.eight
        low[numbers], high[numbers] = scale.low, scale.high
        return low[:, None, None, None], high[:, None, None, None]

    def _check(self, scale: Scale) -> None:
        eight = (self.kinds == EIGHT) | (self.kinds == EIGHT_ARRAY)
        numbers = self.kinds == NUMBERS
        if scale.given:
            numbers |= self.kinds == EIGHT_ARRAY
            eight = self.kinds == EIGHT
        if scale.seen:
            numbers |= self.kinds == DEEP
        if eight.any() and scale.eight <= _DIM and self.highs[eight].max() > 2 * scale.eight:
            raise InputError(
                f"these 8-bit pictures hold numbers up to {float(self.highs[eight].max()):g}; those seen first went up "
                f"to {scale.eight:g}. Bring all to one scale."
            )
        dark = eight & (self.highs <= _DIM)
        several = int(eight.sum()) > 1 or bool((self.kinds[eight] == EIGHT_ARRAY).any())
        if scale.eight > _DIM and several and dark.sum() == eight.sum() and self.highs[eight].max() > 0:
            raise InputError(
                f"none of these 8-bit pictures holds a number above {float(self.highs[eight].max()):g}, and "
                f"{scale.eight:g} is white by those seen first: all would be black. Bring all to one scale."
            )
        if not numbers.any():
            return
        lows, highs, whole = self.lows[numbers], self.highs[numbers], self.whole[numbers]
        low, high = float(lows.min()), float(highs.max())
        span = scale.high - scale.low
        unit = (scale.low, scale.high) == (0.0, 1.0)
        decided = "value_range is" if scale.given else "those seen first were in"
        known = f"{decided} [{scale.low:g}, {scale.high:g}]"
        if not scale.seen:
            known = "those seen first were 8-bit pictures, beside which other numbers are brightness in [0, 1]"
        if high > (_BEYOND if unit else scale.high + 2 * span) or low < scale.low - (0.5 if unit else 2 * span):
            raise InputError(
                f"these pictures hold numbers up to {high:g} and down to {low:g}; {known}. Bring them to that scale "
                "(divide 8-bit numbers by 255, say), or set value_range."
            )
        inside = (lows >= 0) & (highs <= 1)
        varied = highs > lows
        plain = inside & ~whole & (highs - lows >= 0.5)
        if scale.low >= 0 and scale.high >= _FAR and (plain.any() or (inside.all() and varied.any())):
            number = int(numbers.nonzero().flatten()[(plain if plain.any() else varied).nonzero()[0, 0]])
            raise InputError(
                f"picture {number} holds numbers in [0, 1], black at that scale; {known}. Bring all to one scale: "
                f"multiply by {scale.high:g}, or give 8-bit pictures."
            )
        if scale.low < 0 and low == 0 and 0.5 < high <= 1 and not whole.all():
            raise InputError(
                f"these pictures hold numbers from 0 to {high:g}; {known}. Bring them to that scale, as the first were."
            )


def batches(images: Tensor) -> Iterator[Tensor]:
    """Runs of pictures small enough to go through a network at once, some 200,000 numbers of 28 x 28 each."""
    count = max(16, 1024 * 28 * 28 // (images.shape[-2] * images.shape[-1]))
    return iter(images.split(count))
