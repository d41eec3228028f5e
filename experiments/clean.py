"""The encoder of photographs on classes that its own training did not have: drawings, digits, emoji of two hands.

ImageNet has classes of things photographed. Beside the encoder stand raw pixels and the same network untrained; the
errors are of the nearest prototype, with both intervals. Emoji: one image of each by Google's and by Twitter's hand.

python experiments/clean.py --emoji FOLDER --json experiments/results/clean.json        # FOLDER as in own_images.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from own_images import IMAGES, images
from photos import Unwhitened, photos
from torch import Tensor

from metagvae.classifier.inputs import collect
from metagvae.classifier.pictures import batches
from metagvae.encoders.external import load_foreign
from metagvae.evaluation.class_interval import percent
from metagvae.evaluation.vectors import evaluate_vectors
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

ABOUT = {
    "emoji": "emoji, Google's and Twitter's",
    "omniglot": "Omniglot, test characters",
    "digits": "digits 8 x 8",
    "mnist": "MNIST",
}
GREY = 32  # pixels a side that the control of raw pixels sees


@torch.no_grad()
def embedded(network: Any, taken: Tensor) -> Tensor:
    return torch.cat([network(part) for part in batches(taken)])


def rows_of(name: str, emoji: Path | None, episodes: int) -> list[dict[str, str]]:
    """A row for each method."""
    each = IMAGES[name]
    encoder = photos()
    torch.manual_seed(0)
    untrained = load_foreign("timm:tf_efficientnet_lite0", pretrained=False).eval()
    pictures = collect(images(name, each, emoji), 3, encoder.config.size, None, True)
    taken = pictures.on(pictures.scale(None, False))
    small = torch.nn.functional.interpolate(taken, (GREY, GREY), mode="bilinear", antialias=True)
    as_they_come = embedded(Unwhitened(encoder), taken)
    methods = {
        "photos": (encoder.whitening(as_they_come), 1.0),
        "its features, not whitened": (as_they_come, 1.0),
        "untrained network": (embedded(untrained, taken), 0.0),
        "raw pixels": (small.flatten(1), 0.0),
    }
    labels = torch.arange(len(taken)) // each
    shots, rows = (1,) if each == 2 else (1, 5), []
    for method, (features, normalise) in methods.items():
        found = evaluate_vectors(
            features.numpy(),
            labels.numpy(),
            [(5, shot) for shot in shots],
            query=min(each - max(shots), 15),
            episodes=episodes,
            normalise=normalise,
            name=method,
        )
        cells = {f"5-way {r.shot}-shot": percent(r.error, r.half_width, r.over_classes) for r in found}
        rows.append({"images": ABOUT[name], "method": method, "5-way 1-shot": "", "5-way 5-shot": "–", **cells})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--emoji", type=Path, help="folder of the two packages' images; left out without it")
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=Path("experiments/results/clean.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row for name in ABOUT if name != "emoji" or chosen.emoji for row in rows_of(name, chosen.emoji, chosen.episodes)
    ]
    about = (
        f"Error in %, {chosen.episodes} episodes, ± half of the 95 % interval over episodes [over classes]. No "
        "class here is one of ImageNet's, which the encoder was trained on; some emoji draw what it saw photographs of."
    )
    write_json(chosen.json, {"provenance": provenance(), "about": about, "rows": rows})


if __name__ == "__main__":
    main()
