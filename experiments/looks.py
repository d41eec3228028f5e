"""The look of the images that shipped encoders were trained on, into their cards, for the encoder `auto`.

`handwriting`: drawings under the pens and cameras of its config; `warp-protonet-omniglot`: Omniglot's training
characters; `photos`: miniImageNet's training classes, a part of what it was trained on.

python experiments/looks.py
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import ImageBank, augment, to_float
from episodes.datasets import make_dataset
from episodes.untrusted.plain_files import read_json
from metagvae.classifier.look import SIDE, Look
from metagvae.cli.arguments import config_in
from metagvae.config.sections import TrainConfig
from metagvae.storage.atomic_files import write_json
from metagvae.zoo import shipped_encoders

COUNT = 4000  # images
HANDWRITING = "configs/handwriting/protonet.yaml"


def at_side(images: Tensor) -> Tensor:
    """``[n, 3, SIDE, SIDE]`` of images ``[n, C, H, W]``."""
    small = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return small.expand(-1, 3, -1, -1)


def evenly(bank: ImageBank) -> Tensor:
    """Images of all classes, in [0, 1]."""
    return to_float(bank.images[torch.linspace(0, len(bank) - 1, COUNT).long()])


def captured() -> Tensor:
    """Drawings as `handwriting` saw them, each under a pen and camera of its own."""
    config = config_in(HANDWRITING, TrainConfig, "training")
    capture = replace(config.augment.capture, together=0.0)
    generator = torch.Generator().manual_seed(0)
    drawings = evenly(make_dataset("handwriting").load("train"))
    return torch.cat(
        [augment(part, replace(config.augment, capture=capture), generator) for part in drawings.split(100)]
    )


def main() -> None:
    torch.set_num_threads(1)
    seen = {
        "handwriting": (captured(), "Omniglot and the glyphs, as captured in its training"),
        "warp-protonet-omniglot": (evenly(make_dataset("omniglot").load("train")), "omniglot-vinyals, train split"),
        "photos": (evenly(make_dataset("miniimagenet").load("train")), "miniimagenet, train split"),
    }
    for name, (images, where) in seen.items():
        path = shipped_encoders()[name] / "config.json"
        content = read_json(path, "an encoder's config")
        content["card"]["details"]["look"] = Look.of(at_side(images), where).to_dict()
        write_json(path, content)
        print(name, content["card"]["details"]["look"]["mean"])


if __name__ == "__main__":
    main()
