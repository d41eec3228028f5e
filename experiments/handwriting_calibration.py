"""The calibration of `handwriting`, on captured drawings of characters that it was trained on: it saw all there are.

A twin, trained on Omniglot's training characters alone, tells what that costs: it is calibrated on characters that
it saw and on validation characters that it did not see.

python experiments/handwriting_calibration.py RUN --split train       # the figures; with --card they go into its card
python experiments/handwriting_calibration.py TWIN --split validation
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from episodes import CaptureConfig, ImageBank, InputError, to_float
from episodes.capture import capture
from episodes.datasets import make_dataset
from episodes.untrusted.plain_files import read_json
from metagvae import load_encoder
from metagvae.classifier.calibration import Calibration, calibrate
from metagvae.classifier.conformal import embedded_sets, mean_prior
from metagvae.storage.atomic_files import write_json

CHARACTERS = 172  # as many as Omniglot's validation split has
SETTINGS = CaptureConfig(0.7, 0.2, 1.0, 0.07, 8, 0.05, 0.2, 0.05, 0.9)


def banks(split: str, count: int) -> Iterator[ImageBank]:
    """The characters by ``count`` pens and cameras, nine tenths of each the same for all pictures."""
    bank = make_dataset("omniglot").load(split)
    if bank.num_classes > CHARACTERS:
        bank = bank.subset(torch.linspace(0, bank.num_classes - 1, CHARACTERS).long())
    for seed in range(count):
        drawn = capture(to_float(bank.images[:])[None, None], SETTINGS, torch.Generator().manual_seed(seed))[0, 0]
        yield replace(bank, images=drawn.mul(255).round().to(torch.uint8))


def mean_calibration(found: Sequence[Calibration], fitted_on: str) -> Calibration:
    """Geometric means of the scales of several calibrations, which must take features at one length."""
    powers = {one.normalise for one in found}
    if len(powers) > 1:
        raise InputError("some captures want features at length 1 and others do not; no mean holds for both.")
    values = {
        name: float(np.exp(np.mean([np.log(getattr(one, name)) for one in found])))
        for name in ("temperature", "spread", "tail")
    }
    return Calibration(**values, fitted_on=fitted_on, normalise=powers.pop())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("encoder", help="a run or an encoder folder")
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument("--captures", type=int, default=5)
    parser.add_argument("--card", type=Path, help="config.json of the encoder, to be written anew")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    encoder = load_encoder(arguments.encoder)
    found, sets = [], []
    for bank in banks(arguments.split, arguments.captures):
        found.append(calibrate(encoder, bank, 100))
        sets.append(embedded_sets(encoder, bank, found[-1]))
    where = f"omniglot, {CHARACTERS} characters of the {arguments.split} split under {len(found)} captures"
    fitted = mean_calibration(found, where)
    print(fitted)
    if arguments.card:
        content = read_json(arguments.card, "an encoder's config")
        content["card"]["details"].setdefault("calibration", {})["+".join(encoder.features)] = fitted.to_dict()
        scores = mean_prior(sets, where)
        content["card"]["details"].setdefault("sets", {})["+".join(encoder.features)] = scores.to_dict()
        write_json(arguments.card, content)


if __name__ == "__main__":
    main()
