"""A folder of somebody's images, brought to what the encoders that are measured on it take."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from episodes import ImageBank
from episodes.datasets import Dataset
from episodes.datasets.folder import Folder
from metagvae import zoo
from metagvae.compute.processes import ranks
from metagvae.encoders.controls import CONTROLS
from metagvae.encoders.encoder import Encoder
from metagvae.encoders.joined import parts

_JUDGED = 1000  # images, evenly spread, of which the borders are looked at


def bright_borders(bank: ImageBank) -> bool:
    """Whether most of the images' borders are bright: ink on paper."""
    rows = torch.linspace(0, len(bank) - 1, min(len(bank), _JUDGED)).long()
    images = bank.images[rows].float().mean(1)
    border = torch.cat([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1)
    return bool(border.median() > 127.5)


def as_encoders_take(
    dataset: Dataset, sources: Sequence[str], split: str, size: int | None, options: Collection[str]
) -> Dataset:
    """A folder's images at the size, channels and polarity of the first encoder, as `metagvae predict` brings them.

    The first is that of the first that takes one size only; where all resize by themselves, images are read at the size
    of the first. What was done is told on stderr. Data sets other than folders change nothing.

    Args:
        sources: what is to be measured: encoders and runs.
        split: on what.
        size, options: what was set by hand: the size, the names of data options. It stays.
    """
    if not isinstance(dataset, Folder):
        return dataset
    source, encoder = _first_encoder(sources)
    if encoder is None:
        return dataset
    config, changes = encoder.config, cast(dict[str, Any], {})
    if size is None and dataset.side != config.size:
        changes["size"] = config.size
    if encoder.takes_any_size:  # shrunk to less than it sees, images would be blurred when it enlarges them
        return replace(dataset, **changes)
    if "channels" not in options and dataset.channels != config.channels:
        changes["channels"] = config.channels
    found = replace(dataset, **changes)
    if config.polarity == "ink" and not {"invert", "ink"} & set(options) and not (found.invert or found.ink):
        with ranks().first_here():
            inverted = bright_borders(found.load(split))
        changes["invert" if inverted else "ink"] = True
        found = replace(dataset, **changes)
    if changes:
        said = {"invert": ", inverted to bright strokes on black", "ink": ", taken as bright strokes on black"}
        polarity = "".join(text for key, text in said.items() if key in changes)
        colours = "grey" if found.channels == 1 else "RGB"
        ranks().tell(
            f"all images are read {colours} at {found.side} x {found.side}{polarity}, as the encoder {source} takes "
            "them; --size and --data_options set it otherwise"
        )
    return found


def _first_encoder(sources: Sequence[str]) -> tuple[str, Encoder | None]:
    """The first encoder that takes images of one size only, else the first of all, and its name."""
    first: tuple[str, Encoder | None] = "", None
    for source in sources:
        for part in parts(source):
            if part not in CONTROLS:
                encoder = zoo.open(part).encoder()
                if not encoder.takes_any_size:
                    return part, encoder
                first = first if first[1] is not None else (part, encoder)
    return first
