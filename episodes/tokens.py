"""TokenBank: short texts of a split, in the store, offsets and attributes of an `ImageBank`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from episodes.bank import ImageBank
from episodes.errors import InputError

TEXT = "text"  # the polarity of texts, which no image has
UNKNOWN = "\ufffd"


@dataclass(frozen=True)
class TokenBank(ImageBank):
    """Texts of equal length as rows of symbol numbers, uint8 ``[M, 1, 1, length]``.

    Everything that takes the bank of a split takes it: samplers, training, evaluation. In [0, 1], as they hand images
    on, a symbol's number is divided by 255; `numbers_of` gives it back.

    Args:
        symbols: the character of each number; at most 255. Others are read as the last one.

    Example:
        >>> from episodes.tokens import TokenBank
        >>> bank = TokenBank.of_texts([("one", ["abba", "cabd"]), ("two", ["baba", "aaaa"])], "abc")
        >>> bank.text(bank.images[1])
        'cab\ufffd'
        >>> bank.num_classes, len(bank), bank.image_shape
        (2, 4, (4, 4, 1))
    """

    symbols: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= len(self.symbols) <= 255 or len(set(self.symbols)) < len(self.symbols):
            raise InputError(
                f"TokenBank.symbols must be 2 to 255 different characters; received {len(self.symbols)} "
                f"({len(set(self.symbols))} different)."
            )
        if self.images.shape[1:3] != (1, 1):
            raise InputError(f"TokenBank.images must be uint8 [M, 1, 1, length]; received {list(self.images.shape)}.")

    @classmethod
    def of_texts(cls, classes: Sequence[tuple[str, Sequence[str]]], symbols: str, **others: object) -> TokenBank:
        """A bank of (class name, texts of one length) pairs; ``symbols`` without `UNKNOWN`, which is added."""
        symbols = symbols.replace(UNKNOWN, "") + UNKNOWN
        number = {symbol: i for i, symbol in enumerate(symbols)}
        lengths = {len(text) for _, texts in classes for text in texts}
        if len(lengths) != 1:
            raise InputError(f"texts must be of one length; received lengths {sorted(lengths)[:10]}.")
        rows = [
            (name, torch.tensor([[[[number.get(c, len(symbols) - 1) for c in text]]] for text in texts]).byte())
            for name, texts in classes
        ]
        made = cls.from_classes(rows, polarity=TEXT, symbols=symbols, **others)
        assert isinstance(made, cls)
        return made

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(symbols, length, 1): what a decoder gives per text, before one symbol is taken at each place."""
        return len(self.symbols), self.images.shape[-1], 1

    def text(self, row: Tensor) -> str:
        """The characters of one row ``[..., length]`` of symbol numbers, or of such a row in [0, 1]."""
        numbers = numbers_of(row) if row.is_floating_point() else row
        return "".join(self.symbols[int(number)] for number in numbers.flatten())

    def to(self, device: torch.device | str) -> TokenBank:
        """The same bank with its store on ``device``."""
        moved = object.__new__(TokenBank)
        plain = super().to(device)
        moved.__dict__.update({field.name: getattr(self, field.name) for field in fields(self)})
        moved.__dict__.update({field.name: getattr(plain, field.name) for field in fields(ImageBank)})
        return moved


def numbers_of(images: Tensor) -> Tensor:
    """int64 symbol numbers ``[B, length]`` of texts ``[B, 1, 1, length]`` in [0, 1]."""
    return (images.detach().flatten(1).float() * 255).round().long()
