"""A Guided-VAE on drawn glyphs: six latent units are guided to geometry, the others hold what is left.

Ding et al., Guided Variational Autoencoder for Disentanglement Learning, CVPR 2020: beside the main decoder, a light
one rebuilds each image as principal components under an affine warp, and the warp comes from those six units alone.

    python examples/guided_vae.py            # minutes
    python examples/guided_vae.py --small
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from episodes import to_float
from episodes.datasets import make_dataset
from metagvae import Decoder, Encoder, EncoderConfig, GuidedVAE, load_encoder, save_encoder
from metagvae.guidance import DeformablePCA, GuidanceContext, assign_units

LATENT = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few letters and steps, to see that it runs")
    parser.add_argument("--out", type=Path, help="folder for the encoder; a temporary one by default")
    chosen = parser.parse_args()
    steps, batch = (30, 32) if chosen.small else (2000, 64)
    bank = make_dataset("glyphs").load("validation" if chosen.small else "train")
    channels, size, _ = bank.image_shape

    torch.manual_seed(0)
    units = assign_units([{"name": "deformable_pca"}], LATENT)  # geometry: 0 to 5, content: 6 to 31
    encoder = Encoder(EncoderConfig(width=32, channels=channels, size=size, latent=LATENT, units=units))
    guidance = DeformablePCA(GuidanceContext(channels, size, units))
    vae = GuidedVAE(encoder, Decoder(LATENT, channels, size), [guidance]).train()
    optimiser = torch.optim.Adam(vae.parameters(), lr=1e-3)

    for step in range(steps):
        images = to_float(bank.gather(torch.randint(len(bank), (batch,))))
        terms = vae.losses(images, warm_up=min(1.0, 2 * step / steps))
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        if step % (steps // 10) == 0:
            print(f"step {step:5}: " + ", ".join(f"{name} {value.item():.2f}" for name, value in terms.items()))

    # the same letter at its place and moved: geometry should notice more than content does
    vae.eval()
    letters = to_float(bank.images[:200])
    with torch.no_grad():
        here, moved = encoder(letters), encoder(letters.roll(2, -1))
        for name, numbers in units.items():
            change = (here - moved)[:, numbers].square().mean() / here[:, numbers].var(0).mean()
            print(f"{name}: a shift by two pixels changes it by {float(change):.2f} of its variance")

    # a folder with config.json and model.safetensors: `load_encoder(folder)` anywhere, or `metagvae train`
    with tempfile.TemporaryDirectory() as folder:
        place = chosen.out or Path(folder) / "encoder"
        save_encoder(encoder, place)
        again = load_encoder(str(place), features=["content"])
        print(f"saved and read back: {again.feature_size} content units")


if __name__ == "__main__":
    main()
