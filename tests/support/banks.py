"""Banks of made pictures whose classes can be told apart."""

from __future__ import annotations

from dataclasses import replace

import torch

from episodes import Attribute, ImageBank


def stripes(
    classes: int = 12, per_class: int = 8, size: int = 16, channels: int = 1, seed: int = 0, noise: float = 0.2
) -> ImageBank:
    """A bank whose classes can be told apart: noisy gratings of one direction and frequency each."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    parts = []
    for number in range(classes):
        angle = torch.tensor(3.14159 * number / classes)
        phase = torch.rand(per_class, 1, 1, 1, generator=generator) * 0.8
        wave = torch.sin(6 * (x * angle.cos() + y * angle.sin()) + phase)
        grain = noise * torch.randn(per_class, channels, size, size, generator=generator)
        images = ((wave + grain) * 0.35 + 0.5).clamp(0, 1)
        parts.append((f"class{number:02d}", (255 * images.expand(-1, channels, -1, -1)).to(torch.uint8)))
    half = Attribute(torch.arange(classes) % 3, ("a", "b", "c"))
    return ImageBank.from_classes(parts, dataset="stripes", polarity="light", attributes={"third": half})


def drawn_by_hands(hands: int = 4, **made: int) -> ImageBank:
    """`stripes` whose images each have a hand: the first of a class is by the first, and so on."""
    bank = stripes(**made)
    values = torch.arange(len(bank)) % int(bank.counts[0]) % hands
    return replace(bank, image_attributes={"hand": Attribute(values, tuple("abcdefgh"[:hands]))})
