"""A guidance of one's own: content units that are uncorrelated over a batch, in a config and beside deformable PCA.

The covariance term of DIP-VAE-I (Kumar, Sattigeri & Balakrishnan, Variational Inference of Disentangled Latent Concepts
from Unlabeled Observations, ICLR 2018, eq. 6). The class registers itself, so that any config may name it; a command
line takes it too: `metagvae pretrain --import own_guidance ...` from this folder.

    python examples/own_guidance.py            # minutes
    python examples/own_guidance.py --small
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from episodes import InputError, to_float
from episodes.datasets import make_dataset
from metagvae.config import EncoderSection, OptimSection, PretrainConfig, RunSection, VAESection
from metagvae.encoders.norm import full_precision
from metagvae.guidance import GUIDANCES, Guidance, GuidanceContext, GuidanceInputs
from metagvae.training.pretraining import pretrain


@GUIDANCES.register
class Uncorrelated(Guidance):
    """The covariance of the content units' means over a batch, drawn to the identity.

    Args:
        weight: on the scale of one image's reconstruction error.
    """

    name = "uncorrelated"

    def __init__(self, context: GuidanceContext, weight: float = 1.0) -> None:
        super().__init__()
        if weight < 0:
            raise InputError(f"uncorrelated's weight must be at least 0; received {weight}.")
        self.weight, self.content = weight, context.units["content"]

    @classmethod
    def owned_units(cls, **options: Any) -> dict[str, int]:
        return {}  # it asks for no units of its own

    def forward(self, inputs: GuidanceInputs) -> dict[str, Tensor]:
        mean = full_precision(inputs.posterior.mean[:, self.content])
        excess = torch.cov(mean.T) - torch.eye(len(self.content), device=mean.device)
        return {"covariance": self.weight * excess.square().sum()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few letters and steps, to see that it runs")
    chosen = parser.parse_args()
    bank = make_dataset("glyphs").load("validation" if chosen.small else "train")
    images = to_float(bank.images[::10])
    for weight in (0.0, 10.0):
        with tempfile.TemporaryDirectory() as folder:
            config = PretrainConfig(
                encoder=EncoderSection(width=16, latent=16),
                vae=VAESection(guidance=[{"name": "deformable_pca"}, {"name": "uncorrelated", "weight": weight}]),
                batch=32,
                optim=OptimSection(steps=20 if chosen.small else 2000),
                run=RunSection(folder=str(Path(folder) / "run")),
            )
            vae = pretrain(config, bank)
        with torch.no_grad():
            means = vae.infer(images).mean[:, vae.encoder.units["content"]]
        across = torch.corrcoef(means.T).abs().fill_diagonal_(0).sum() / (means.shape[1] * (means.shape[1] - 1))
        print(f"weight {weight:4.1f}: mean absolute correlation of two content units {float(across):.3f}")


if __name__ == "__main__":
    main()
