"""ImageBank: all images of a split as one uint8 store, grouped by class."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from episodes.errors import InputError
from episodes.shards import Shards

HASHED_BYTES = 2**28  # of a bank's pictures: a fifth of a second


@dataclass(frozen=True)
class Attribute:
    """A known factor of the classes, such as the alphabet a character belongs to, or of the images.

    Args:
        values: int64 ``[classes]``, or ``[M]`` of images, each in ``[0, len(names))``, or below zero where unknown.
        names: what each value stands for.

    Example:
        >>> import torch
        >>> from episodes import Attribute
        >>> alphabet = Attribute(torch.tensor([0, 0, 1]), ("Greek", "Latin"))
        >>> print(*(alphabet.names[value] for value in alphabet.values.tolist()))
        Greek Greek Latin
    """

    values: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class Factors:
    """Known numbers of each image, such as the angle at which it was drawn.

    Args:
        values: float32 ``[M, factors]`` in the factors' own units, NaN where a number is unknown.
        names: of the columns.

    Example:
        >>> import torch
        >>> from episodes import Factors
        >>> factors = Factors(torch.tensor([[30.0, 1.5], [float("nan"), 2.0]]), ("angle", "size"))
        >>> factors.known.tolist()
        [[True, True], [False, True]]
    """

    values: Tensor
    names: tuple[str, ...]

    @property
    def known(self) -> Tensor:
        """bool ``[M, factors]``."""
        return ~self.values.isnan()

    def columns(self, rows: Tensor) -> dict[str, Tensor]:
        """float32 of ``rows``' shape by name, given int64 image numbers."""
        return dict(zip(self.names, self.values[rows].unbind(-1), strict=True))


@dataclass(frozen=True)
class ImageBank:
    """All images of one split.

    Args:
        images: uint8 ``[M, C, H, W]``, the images of a class beside each other; of a large set, in several files.
        offsets: int64 ``[classes + 1]``; class ``c`` is ``images[offsets[c]:offsets[c + 1]]``.
        class_names: one name per class, unique.
        dataset: the data set's name, for reports.
        split: ``train``, ``validation`` or ``test``.
        polarity: what a large value means: ``ink`` (bright strokes on black) or ``light`` (photographs).
        attributes: known factors of the classes, by name.
        image_attributes: known factors that differ within a class, by names that no attribute has, such as who drew it.
        notes: what a reader of a result should know (skipped files, duplicates).
        factors: known numbers of the images; None without any.

    Raises:
        InputError: if shapes or types do not fit each other.

    Example:
        >>> import torch
        >>> from episodes import ImageBank
        >>> images = torch.randint(0, 256, (8, 6, 1, 28, 28), dtype=torch.uint8)
        >>> bank = ImageBank.from_classes([(f"class {i}", x) for i, x in enumerate(images)], dataset="noise")
        >>> bank.num_classes, len(bank), bank.image_shape
        (8, 48, (1, 28, 28))
        >>> bank.gather(torch.tensor([[0, 47]])).shape
        torch.Size([1, 2, 1, 28, 28])
    """

    images: Tensor | Shards
    offsets: Tensor
    class_names: tuple[str, ...]
    dataset: str = "custom"
    split: str = "train"
    polarity: str = "light"
    attributes: dict[str, Attribute] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    factors: Factors | None = None
    image_attributes: dict[str, Attribute] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise InputError(
                f"ImageBank.images must be uint8 [M, C, H, W]; received {self.images.dtype} "
                f"{list(self.images.shape)}. Convert with (255 * x).to(torch.uint8)."
            )
        if len(self.offsets) != len(self.class_names) + 1 or int(self.offsets[-1]) != len(self.images):
            raise InputError(
                f"ImageBank.offsets must have one entry more than the {len(self.class_names)} class names and "
                f"end at the number of images, {len(self.images)}; received {len(self.offsets)} entries ending "
                f"at {int(self.offsets[-1])}."
            )
        self._check_attributes(self.attributes, len(self.class_names), "classes", "class")
        self._check_attributes(self.image_attributes, len(self), "images", "image")
        twice = [name for name in self.image_attributes if name == "class" or name in self.attributes]
        if twice:
            raise InputError(
                f"{self.dataset} has an attribute '{twice[0]}' of its classes; give that of its images another name."
            )
        if self.factors is not None:
            self._check_factors(self.factors)

    def _check_attributes(self, attributes: Mapping[str, Attribute], count: int, several: str, one: str) -> None:
        for name, attribute in attributes.items():
            if len(attribute.values) != count:
                raise InputError(
                    f"attribute '{name}' of {self.dataset} has {len(attribute.values)} values for {count} {several}; "
                    f"give one value per {one}."
                )

    def _check_factors(self, factors: Factors) -> None:
        values, names = factors.values, factors.names
        if values.dtype != torch.float32 or values.shape != (len(self), len(names)) or values.isinf().any():
            raise InputError(
                f"the factors of {self.dataset} must be finite float32 [{len(self)}, {len(names)}], a row per image "
                f"and a column per name, NaN where unknown; received {values.dtype} {list(values.shape)}."
            )
        taken = {"class", *self.attributes, *self.image_attributes}
        if len(set(names)) < len(names) or taken & set(names):
            raise InputError(
                f"the factors of {self.dataset} must have names of their own, none of {', '.join(sorted(taken))}; "
                f"received {', '.join(names)}."
            )

    @classmethod
    def from_classes(cls, classes: Sequence[tuple[str, Tensor]], **fields: object) -> ImageBank:
        """A bank from (name, uint8 ``[n, C, H, W]``) pairs in order."""
        if not classes:
            raise InputError("an image bank needs at least one class; received none.")
        counts = torch.tensor([0] + [len(images) for _, images in classes])
        return cls(
            images=torch.cat([images for _, images in classes]),
            offsets=counts.cumsum(0),
            class_names=tuple(name for name, _ in classes),
            **fields,  # type: ignore[arg-type]
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    @cached_property
    def counts(self) -> Tensor:
        """int64 ``[classes]``: images per class."""
        return self.offsets.diff()

    @cached_property
    def labels(self) -> Tensor:
        """int64 ``[M]``: the class of each image."""
        numbers = torch.arange(self.num_classes, device=self.offsets.device)
        return torch.repeat_interleave(numbers, self.counts, output_size=len(self))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (16 hex digits) of the split: its class names, counts, picture shape and the names of its factors.

        Two results compare only if this agrees; it is printed with every result. What the pictures show is in
        `pixels`, so that a split has one fingerprint whatever software decoded it.
        """
        text = "\n".join(f"{n}\t{c}" for n, c in zip(self.class_names, self.counts.tolist(), strict=True))
        factors = "" if self.factors is None else f"\nfactors\t{self.factors.names}"
        return hashlib.sha256(f"{self.image_shape}\n{text}{factors}".encode()).hexdigest()[:16]

    @cached_property
    def pixels(self) -> str:
        """SHA-256 (16 hex digits) of the pictures' numbers and their factors'.

        Of more than 256 MB of pictures, of evenly spread ones.
        """
        digest = hashlib.sha256()
        per_picture = self.images[:1].numel()
        step = max(1, math.ceil(len(self) * per_picture / HASHED_BYTES))
        for start in range(0, len(self), 1024 * step):
            digest.update(self.images[start : start + 1024 * step : step].contiguous().cpu().numpy().data)
        if self.factors is not None:
            digest.update(self.factors.values.contiguous().cpu().numpy().data)
        return digest.hexdigest()[:16]

    def to(self, device: torch.device | str) -> ImageBank:
        """The same bank with its store on ``device``."""

        def moved(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
            return {
                name: replace(attribute, values=attribute.values.to(device)) for name, attribute in attributes.items()
            }

        bank = object.__new__(ImageBank)  # not checked anew: that reads numbers back, and waits for the device
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        factors = None if self.factors is None else replace(self.factors, values=self.factors.values.to(device))
        bank.__dict__.update(
            fields,
            images=self.images.to(device),
            offsets=self.offsets.to(device),
            attributes=moved(self.attributes),
            image_attributes=moved(self.image_attributes),
            factors=factors,
        )
        return bank

    def gather(self, indices: Tensor, pin: bool = False) -> Tensor:
        """uint8 ``[*indices.shape, C, H, W]`` from int64 image numbers of any shape.

        Args:
            pin: give page-locked memory (of a bank that lies in memory).
        """
        rows = indices.reshape(-1)
        if pin:
            flat = torch.empty(len(rows), *self.images.shape[1:], dtype=torch.uint8, pin_memory=True)
            if isinstance(self.images, Shards):
                self.images.index_select(0, rows, out=flat)
            else:
                torch.index_select(self.images, 0, rows, out=flat)
        else:
            flat = self.images.index_select(0, rows)
        return flat.view(*indices.shape, *self.images.shape[1:])

    def subset(self, classes: Tensor, split: str | None = None) -> ImageBank:
        """A bank of the given classes (int64 class numbers, in that order)."""
        numbers = classes.tolist()
        spans = [torch.arange(int(self.offsets[c]), int(self.offsets[c + 1])) for c in numbers]
        counts, rows = torch.tensor([0] + [len(span) for span in spans]), torch.cat(spans)
        return replace(
            self,
            images=self.images[rows],
            offsets=counts.cumsum(0),
            class_names=tuple(self.class_names[c] for c in numbers),
            attributes=_taken(self.attributes, classes),
            split=split or self.split,
            factors=None if self.factors is None else replace(self.factors, values=self.factors.values[rows]),
            image_attributes=_taken(self.image_attributes, rows),
        )

    def with_rotations(self) -> ImageBank:
        """Four classes for one: each class and its turns by 90, 180 and 270 degrees, in that order.

        Call it only on a split, never before splitting: a turned class must stay on its own side.
        A ``rotation`` attribute is added; the images must be square. A turned image keeps the attributes of the image;
        what its factors are is unknown.
        """
        if self.images.shape[-1] != self.images.shape[-2]:
            raise InputError(f"rotations need square pictures; {self.dataset} has {self.image_shape}.")
        parts: list[tuple[str, Tensor]] = []
        for number, name in enumerate(self.class_names):
            images = self.images[int(self.offsets[number]) : int(self.offsets[number + 1])]
            parts += [(f"{name}/rot{90 * k:03d}", torch.rot90(images, k, (-2, -1))) for k in range(4)]
        attributes = _taken(self.attributes, torch.arange(self.num_classes).repeat_interleave(4))
        turns = torch.arange(4).repeat(self.num_classes)
        factors = None
        if self.factors is not None:
            each = self.factors.values.split(self.counts.tolist())
            rows = [torch.cat((upright, torch.full_like(upright, torch.nan).repeat(3, 1))) for upright in each]
            factors = replace(self.factors, values=torch.cat(rows))
        every = torch.arange(len(self)).split(self.counts.tolist())
        upright = torch.cat([rows.repeat(4) for rows in every])  # of each turned image, the one that it is a turn of
        attributes["rotation"] = Attribute(turns, ("0", "90", "180", "270"))
        return ImageBank.from_classes(
            parts,
            dataset=self.dataset,
            split=self.split,
            polarity=self.polarity,
            attributes=attributes,
            notes=self.notes,
            factors=factors,
            image_attributes=_taken(self.image_attributes, upright),
        )


def _taken(attributes: Mapping[str, Attribute], rows: Tensor) -> dict[str, Attribute]:
    """The attributes of the given classes or images."""
    return {name: replace(attribute, values=attribute.values[rows]) for name, attribute in attributes.items()}
