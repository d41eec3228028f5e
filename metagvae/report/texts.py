"""Lines that a VAE of texts writes: rebuilt, between two, and drawn from the prior."""

from __future__ import annotations

from pathlib import Path

import torch

from episodes import to_float
from episodes.tokens import TokenBank
from metagvae.storage.atomic_files import write_beside
from metagvae.vae.guided_vae import GuidedVAE

_COUNT, _BETWEEN = 5, 6


@torch.no_grad()
def text_lines(vae: GuidedVAE, bank: TokenBank, seed: int = 0) -> dict[str, list[str]]:
    """Lines by what they are: texts, the same rebuilt, an interpolation of two latents, samples from the prior.

    Rebuilt and interpolated ones take the likeliest character each time, samples a drawn one.

    Args:
        seed: of the samples.
    """
    chosen = to_float(bank.images[torch.linspace(0, len(bank) - 1, _COUNT).long()])
    z = vae.infer(chosen).mean
    weights = torch.linspace(0, 1, _BETWEEN).unsqueeze(1)
    between = (1 - weights) * z[:1] + weights * z[-1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = vae.prior.sample(_COUNT, {})
        samples = vae.decoder.write(drawn, torch.Generator().manual_seed(seed))  # type: ignore[operator]
    return {
        "text": [bank.text(row) for row in chosen],
        "rebuilt": [bank.text(row) for row in vae.decode(z)],
        "between the first and the last": [bank.text(row) for row in vae.decode(between)],
        "drawn from the prior": [bank.text(row) for row in samples],
    }


def write_texts(vae: GuidedVAE, bank: TokenBank, path: Path) -> None:
    """Writes `text_lines` to a file."""
    parts = [f"{name}\n" + "".join(f"  {line}\n" for line in lines) for name, lines in text_lines(vae, bank).items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_beside(path, "\n".join(parts).encode())
