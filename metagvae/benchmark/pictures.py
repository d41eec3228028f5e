"""The pictures that rows are measured on: the real ones where they are at hand, noise of the same shape elsewhere."""

from __future__ import annotations

import torch

from episodes import ImageBank, InputError
from episodes.datasets import make_dataset
from metagvae.benchmark.rows import Context


def noise_bank(
    classes: int,
    per_class: int,
    size: int = 28,
    seed: int = 0,
    split: str = "train",
    device: torch.device | str = "cpu",
    channels: int = 1,
) -> ImageBank:
    """Classes of uniform noise, uint8; what is timed does not look at the values."""
    generator = torch.Generator(device).manual_seed(seed)
    images = torch.zeros(classes * per_class, channels, size, size, dtype=torch.uint8, device=device)
    # eight bytes at a draw; the last few, if any, stay zero
    whole = images.flatten()[: images.numel() // 8 * 8].view(torch.int64)
    whole.random_(generator=generator)
    return ImageBank(
        images=images,
        offsets=torch.arange(classes + 1, device=device) * per_class,
        class_names=tuple(map(str, range(classes))),
        dataset="noise",
        split=split,
        polarity="ink" if channels == 1 else "light",
    )


def bank_or_noise(context: Context, name: str, split: str, classes: int, per_class: int) -> ImageBank:
    """A split of a data set, or noise of that many classes (at most ``sizes.classes``) if it is not at hand.

    The bank's ``dataset`` says which.
    """
    try:
        return make_dataset(name, root=context.root(name)).load(split)
    except InputError:
        return noise_bank(min(classes, context.sizes.classes), per_class, seed=context.seed, split=split)
