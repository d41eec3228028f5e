"""Lines that a VAE of texts writes: rebuilt, between two, and drawn from the prior."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from episodes import to_float
from episodes.tokens import TokenBank
from episodes.whole_files import write_beside
from metagvae.report.figure_files import plain, save_figure
from metagvae.vae.guided_vae import GuidedVAE

_COUNT, _BETWEEN = 5, 6


@torch.no_grad()
def text_lines(vae: GuidedVAE, bank: TokenBank, seed: int = 0) -> dict[str, list[str]]:
    """Lines by what they are: texts, the same rebuilt, an interpolation of two latents, samples from the prior.

    Rebuilt ones take the likeliest character each time, samples a drawn one; interpolations are written both ways.

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
        samples, on_the_way = (
            vae.decoder.write(latents, torch.Generator().manual_seed(seed))  # type: ignore[operator]
            for latents in (drawn, between)
        )
    return {
        "text": [bank.text(row) for row in chosen],
        "rebuilt": [bank.text(row) for row in vae.decode(z)],
        "between the first and the last": [bank.text(row) for row in vae.decode(between)],
        "between the two, characters drawn": [bank.text(row) for row in on_the_way],
        "drawn from the prior": [bank.text(row) for row in samples],
    }


def write_texts(vae: GuidedVAE, bank: TokenBank, path: Path) -> None:
    """Writes `text_lines` to a file."""
    parts = [f"{name}\n" + "".join(f"  {line}\n" for line in lines) for name, lines in text_lines(vae, bank).items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_beside(path, "\n".join(parts).encode())


def draw_texts(columns: Mapping[str, Mapping[str, list[str]]], path: Path) -> None:
    """A figure of `text_lines` of several models side by side, in letters of one width.

    Args:
        columns: lines by what they are, by the model's name; all of the same kinds.
    """
    from matplotlib.figure import Figure

    longest = max(len(line) for lines in columns.values() for part in lines.values() for line in part)
    rows = max(sum(len(part) + 2 for part in lines.values()) for lines in columns.values()) + 1
    wide, high, size = 0.0605 * longest + 0.3, 0.135, 7.0  # inches, inches, points
    width, height = wide * len(columns), high * (rows + 0.5)
    figure = Figure(figsize=(width, height), dpi=120)
    for number, (name, lines) in enumerate(columns.items()):
        left, row = (0.12 + wide * number) / width, 1.0
        figure.text(left, 1 - high * row / height, plain(name), fontsize=size + 1, fontweight="bold")
        for kind, part in lines.items():
            row += 1.5
            figure.text(left, 1 - high * row / height, plain(kind), fontsize=size, color="0.4")
            for line in part:
                row += 1
                figure.text(left, 1 - high * row / height, plain(line), fontsize=size, family="monospace")
            row += 0.5
    save_figure(figure, path)
