"""Grids of drawn images as PNG and SVG files, with the name of each row at its left."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from episodes.whole_files import write_beside
from metagvae.report.section import readable
from metagvae.vae.sheet import sheet
from metagvae.vae.synthesis import Drawn

PIXEL = 1 / 36  # inch that a pixel of an image takes on paper
MOST_INCHES = 24.0


def folded(drawn: Drawn, columns: int) -> Drawn:
    """One long row cut into rows of ``columns``; the last is filled up with white paper's nothing."""
    images, latents = drawn.images[0], drawn.latents[0]
    missing = -len(images) % columns
    empty = torch.zeros_like(images[:1]).expand(missing, *images.shape[1:])
    images = torch.cat((images, empty)).unflatten(0, (-1, columns))
    return Drawn(images, latents[None], ("",) * len(images))


def write_grid(drawn: Drawn, stem: Path, polarity: str, title: str, heads: tuple[str, ...] = ()) -> list[Path]:
    """Writes ``STEM.png`` and ``STEM.svg`` of rows of images, and returns both paths.

    Args:
        polarity: of the images; bright strokes are shown dark on white.
        heads: a word over each column; none for none.
    """
    import matplotlib
    from matplotlib.figure import Figure

    paper = sheet(drawn.images, polarity)
    scale = min(PIXEL, MOST_INCHES / max(paper.shape[:2]))
    margin = 1.6 if any(drawn.rows) else 0.08
    head = 0.34 + (0.2 if heads else 0.0)
    inches = (margin + paper.shape[1] * scale + 0.08, head + paper.shape[0] * scale + 0.08)
    with matplotlib.rc_context({"svg.hashsalt": "metagvae", "text.parse_math": False}):
        figure = Figure(figsize=inches, dpi=144)
        axis = figure.add_axes(
            (margin / inches[0], 0.08 / inches[1], paper.shape[1] * scale / inches[0], 1 - (head + 0.08) / inches[1])
        )
        axis.set_axis_off()
        # nearest: what is seen is what was drawn
        axis.imshow(paper.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        rows, columns = drawn.images.shape[:2]
        for row, name in enumerate(drawn.rows):
            middle = (0.08 + (rows - row - 0.5) * paper.shape[0] * scale / rows) / inches[1]
            figure.text(0.08 / inches[0], middle, readable(name, 22), va="center", fontsize=9)
        for column, word in enumerate(heads):
            middle = (margin + (column + 0.5) * paper.shape[1] * scale / columns) / inches[0]
            figure.text(middle, 1 - (head - 0.1) / inches[1], readable(word, 12), ha="center", fontsize=7)
        figure.text(0.08 / inches[0], 1 - 0.17 / inches[1], readable(title, 160), va="center", fontsize=10)
        paths = []
        for kind, nothing in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=nothing)
            path = stem.with_name(f"{stem.name}.{kind}")
            write_beside(path, buffer.getvalue())
            paths.append(path)
    return paths
