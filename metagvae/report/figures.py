"""Figures: reconstructions, traversals, episodes, curves, error bars. All drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from episodes import EpisodeBatch, ImageBank, InputError, to_float
from metagvae.encoders.sparse import SparseEncoder
from metagvae.evaluation.results import Result
from metagvae.evaluation.sample_quality import nearest
from metagvae.report.figure_files import plain, save_figure
from metagvae.runs.metrics_log import read_metrics
from metagvae.studies.disentangle import Scores
from metagvae.studies.linked import Linked
from metagvae.studies.linked_labels import LabelLink
from metagvae.studies.naming import short_names
from metagvae.studies.refine import RefinementCurve
from metagvae.studies.selection import Selection
from metagvae.studies.sweep.results import Sweep
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.synthesis import Synthesis


def tile(rows: Sequence[Tensor], labels: Sequence[str], path: Path, title: str) -> None:
    """Rows of pictures ``[n, C, H, W]`` in [0, 1] with a label each."""
    from matplotlib.figure import Figure

    cell, gap, margin, head = 0.56, 0.03, 1.25, 0.32  # inches
    width, height = margin + cell * max(len(row) for row in rows), head + cell * len(rows)
    figure = Figure(figsize=(width, height), dpi=120)
    axis = figure.add_axes((0, 0, 1, 1))  # of the whole figure, in inches: an axis for each image would take a second
    axis.set_axis_off()
    for line, (row, label) in enumerate(zip(rows, labels, strict=True)):
        bottom = height - head - cell * (line + 1)
        for column, picture in enumerate(row.detach().float().clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()):
            side = (cell - gap) / max(picture.shape[:2])
            tall, wide = side * picture.shape[0], side * picture.shape[1]
            left, low = margin + cell * column + (cell - gap - wide) / 2, bottom + (cell - gap - tall) / 2
            extent = (left, left + wide, low, low + tall)
            axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
        figure.text(0.08 / width, (bottom + (cell - gap) / 2) / height, plain(label), va="center", fontsize=8)
    axis.set(xlim=(0, width), ylim=(0, height), aspect="auto")
    figure.text(0.08 / width, 1 - 0.5 * head / height, plain(title), va="center", fontsize=9)
    save_figure(figure, path)


@torch.no_grad()
def reconstructions(vae: GuidedVAE, bank: ImageBank, path: Path, count: int = 12) -> None:
    """Pictures, the decoder's rebuilding, and what the guidances draw of the same latents."""
    chosen = torch.linspace(0, len(bank) - 1, count).long()
    images = to_float(bank.images[chosen])
    z = vae.infer(images).mean
    rows, labels = [images, vae.decode(z)], ["image", "decoder"]
    for guidance in vae.guidances:
        drawings = guidance.drawings(z)
        rows += drawings.values()
        labels += drawings
    tile(rows, labels, path, f"{bank.dataset}, {bank.split}: images and what the latent keeps of them")


@torch.no_grad()
def traversal(vae: GuidedVAE, bank: ImageBank, path: Path, steps: int = 9, most: int = 12) -> None:
    """One picture's latent with one unit moved at a time: guided units first, then those of largest KL."""
    reach = vae.prior.reach
    image = to_float(bank.images[len(bank) // 3 : len(bank) // 3 + 1])
    kl = vae.kl_of_units(vae.infer(to_float(bank.images[:: max(1, len(bank) // 256)])))
    names = {unit: group for group, units in vae.encoder.units.items() for unit in units}
    own = [unit for unit, group in names.items() if group != "content"]
    rest = [unit for unit, group in names.items() if group == "content"]
    if kl is not None:
        rest.sort(key=lambda unit: -float(kl[unit]))
    units = (own + rest)[:most]
    start = vae.infer(image).mean
    rows = []
    for unit in units:
        z = start.repeat(steps, 1)
        z[:, unit] = torch.linspace(-reach, reach, steps)
        rows.append(vae.decode(z))
    labels = [f"{names[unit]} {unit}" + ("" if kl is None else f"\nKL {float(kl[unit]):.2f}") for unit in units]
    tile(rows, labels, path, f"one unit at a time, from {-reach} to {reach}")


def samples(vae: GuidedVAE, path: Path, rows: int = 6, columns: int = 12) -> None:
    """Images of draws from the prior."""
    drawn = Synthesis(vae).samples(rows * columns).images[0]
    tile(list(drawn.split(columns)), [""] * rows, path, "draws from the prior")


def atoms(encoder: SparseEncoder, path: Path, most: int = 128, columns: int = 16) -> None:
    """The atoms of a dictionary, each at its own contrast, grey where it is zero."""
    shown = encoder.atom_images()[:most]
    rows = list(shown.split(columns))
    about = f"{len(shown)} of {encoder.config.atoms} atoms of {encoder.config.side} x {encoder.config.side} pixels"
    tile(rows, [f"{columns * line}" for line in range(len(rows))], path, about)


def _coloured(maps: Tensor) -> Tensor:
    """Maps of the pen's direction ``[n, bins, H, W]`` in colours, a hue a direction; others as they are."""
    bins = maps.shape[1]
    if bins in (1, 3):
        return maps
    turns = torch.arange(bins, device=maps.device) / bins
    hues = torch.stack([0.5 + 0.5 * torch.cos(2 * torch.pi * (turns - third / 3)) for third in range(3)], 1)
    return torch.einsum("nbhw,bc->nchw", maps, hues).clamp(0, 1)


def linked(found: Linked, path: Path) -> None:
    """Input, output and target of each way of a link; a hue is a direction of the pen."""
    rows, labels = [], []
    for way, pictures in found.pictures.items():
        for label, drawn in pictures:
            rows.append(_coloured(drawn))
            labels.append(f"{way if label == 'made' else label}")
    tile([row.expand(-1, 3, -1, -1) if row.shape[1] == 1 else row for row in rows], labels, path, "unseen characters")


def from_labels(found: LabelLink, path: Path) -> None:
    """The image that a link makes of each label alone."""
    tile([found.made], ["from its label"], path, f"{found.dataset}: {found.from_label} of {len(found.made)} right")


@torch.no_grad()
def nearest_images(
    vaes: Mapping[str, GuidedVAE], train: ImageBank, path: Path, temperature: float, seed: int, count: int = 16
) -> None:
    """Samples of each VAE, each above the training image that is nearest to it."""
    seen = to_float(torch.as_tensor(train.images))
    rows, labels = [], []
    for name, vae in vaes.items():
        drawn = Synthesis(vae, temperature, seed).samples(count).images[0]
        rows += [drawn, seen[nearest(drawn, seen)[1]]]
        labels += [Path(name).name[:18], "nearest in training"]
    tile(rows, labels, path, f"Samples and the nearest of {len(seen):,} training images of {train.dataset}")


def episode(batch: EpisodeBatch, path: Path) -> None:
    """The first episode of a batch: per way its support, then its queries."""
    rows = [batch.images[0, way, : batch.shot + min(batch.queries, 10)] for way in range(batch.way)]
    tile(rows, [f"way {way}" for way in range(batch.way)], path, f"an episode: {batch.shot} support, then queries")


def curves(run: Path, path: Path) -> None:
    """Loss and validation error against steps, from a run's metrics."""
    from matplotlib.figure import Figure

    lines = list(read_metrics(run))
    figure = Figure(figsize=(6, 3.2), dpi=120)
    axis = figure.subplots()
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    if losses:
        axis.plot(*zip(*losses, strict=True), color="#4C72B0", label="loss")
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    errors = [(line["step"], 100 * line["validation_error"]) for line in lines if "validation_error" in line]
    if errors:
        twin = axis.twinx()
        twin.plot(*zip(*errors, strict=True), color="#C44E52", marker="o", markersize=3)
        twin.set_ylabel("validation error, %", color="#C44E52")
    figure.tight_layout()
    save_figure(figure, path)


def error_bars(results: Sequence[Result], path: Path) -> None:
    """Error with its 95 % interval: one panel per data set and episode shape, one bar per method."""
    from matplotlib.figure import Figure

    panels = sorted({(r.dataset, r.way, r.shot) for r in results})
    methods = list(dict.fromkeys(r.method for r in results))
    figure = Figure(figsize=(1.6 + 2.3 * len(panels), 1.2 + 0.32 * len(methods)), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (dataset, way, shot) in zip(axes, panels, strict=True):
        here = {r.method: r for r in results if (r.dataset, r.way, r.shot) == (dataset, way, shot)}
        known = [m for m in methods if m in here]
        places = [methods.index(m) for m in known]
        axis.barh(
            places,
            [100 * here[m].error for m in known],
            xerr=[100 * here[m].half_width for m in known],
            color="#4C72B0",
            error_kw={"elinewidth": 1.2},
        )
        axis.set_title(f"{plain(dataset)}\n{way}-way {shot}-shot", fontsize=8)
        axis.set_xlabel("error, %", fontsize=8)
        axis.tick_params(labelsize=8)
    axes[0].set_yticks(range(len(methods)), [plain(method) for method in methods])
    axes[0].invert_yaxis()
    save_figure(figure, path)


def scores_against_errors(rows: Sequence[Scores], path: Path) -> None:
    """Few-shot error against each disentanglement score: a colour per encoder, hollow for a part of its units."""
    from matplotlib.figure import Figure

    known = [row for row in rows if row.error is not None]
    if not known:
        raise InputError("a figure of scores against errors needs few-shot errors; sprites have none.")
    names = list(known[0].scores)
    encoders = list(dict.fromkeys(row.encoder for row in known))
    figure = Figure(figsize=(11, 5.2), dpi=120, layout="constrained")
    axes = figure.subplots(2, (len(names) + 2) // 2, sharey=True).flatten()
    for axis, name in zip(axes, names, strict=False):
        for row in known:
            colour = f"C{encoders.index(row.encoder)}"
            face = colour if row.features == "latent" else "none"
            error = 100 * (row.error or 0.0)
            axis.scatter(row.scores[name], error, edgecolors=colour, facecolors=face, s=40)
        axis.set_xlabel(name, fontsize=8)
        axis.tick_params(labelsize=8)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis in axes[:: len(axes) // 2]:
        axis.set_ylabel("few-shot error, %", fontsize=8)
    for number, encoder in enumerate(encoders):
        axes[-1].scatter([], [], color=f"C{number}", label=plain(encoder))
    axes[-1].scatter([], [], edgecolors="black", facecolors="none", label="hollow: content units alone")
    axes[-1].legend(loc="center", fontsize=7, frameon=False)
    save_figure(figure, path)


def refinement(found: RefinementCurve, path: Path) -> None:
    """Reconstruction and KL against the number of steps, and the few-shot errors against the same."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), dpi=120, layout="constrained")
    terms, errors = figure.subplots(1, 2)
    for name, values in (
        ("reconstruction + KL", [b.total for b in found.bounds]),
        ("reconstruction", [b.reconstruction for b in found.bounds]),
        ("KL", [b.kl for b in found.bounds]),
    ):
        terms.plot(found.steps, values, marker="o", ms=3, label=name)
    terms.set_ylabel("nats per image")
    shapes = list(dict.fromkeys((r.way, r.shot) for r in found.comparison.results))
    for way, shot in shapes:
        here = [r for r in found.comparison.results if (r.way, r.shot) == (way, shot)]
        values, bars = [100 * r.error for r in here], [100 * r.half_width for r in here]
        errors.errorbar(found.steps, values, bars, marker="o", ms=3, label=f"{way}-way {shot}-shot")
    errors.set_ylabel("few-shot error, %")
    for axis in (terms, errors):
        axis.set_xlabel("steps")
        axis.legend(fontsize=7, loc="best" if axis is terms else "upper left")  # "best" sees no error bars
    save_figure(figure, path)


def sweep(found: Sweep, path: Path) -> None:
    """A sweep's errors in the order of its trials with the best so far, then the error over each setting."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    complete = [t for t in found.trials if t.error is not None]
    panels = 1 + len(found.ranges)
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(4 * columns, 3.1 * rows), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    errors = [100 * (t.error or 0) for t in complete]
    bars = [100 * (t.half_width or 0) for t in complete]
    first = axes[0]
    first.errorbar([t.number for t in complete], errors, bars, fmt="o", ms=4, lw=1, color="0.35", label="trial")
    if complete:
        so_far = [min(errors[: i + 1]) for i in range(len(errors))]
        first.step([t.number for t in complete], so_far, where="post", color="C0", label="best so far")
    for state, mark in (("pruned", "x"), ("failed", "v"), ("killed", "|")):
        numbers = [t.number for t in found.trials if t.state == state]
        if numbers:  # on the axis: they have no error
            across = first.get_xaxis_transform()
            first.plot(numbers, [0.02] * len(numbers), mark, color="C3", transform=across, label=state)
    first.set_xlabel("trial")
    first.set_ylabel("validation error, %")
    first.xaxis.set_major_locator(MaxNLocator(integer=True))
    if found.trials:
        first.legend(fontsize=7)
    for axis, (key, range_) in zip(axes[1:], found.ranges.items(), strict=False):
        values = [t.values[key] for t in complete]
        if range_.kind == "choice":
            names = [plain(_shortened(value)) for value in range_.ends()]
            axis.set_xticks(range(len(names)), names, fontsize=7)
            axis.set_xlim(-0.5, len(names) - 0.5)
            values = [range_.choices.index(range_.stored(value)) for value in values]  # false is no 0 there
        elif range_.log:
            axis.set_xscale("log")
        axis.errorbar(values, errors, bars, fmt="o", ms=4, lw=1, color="0.35")
        if found.best is not None:
            place = complete.index(found.best)
            axis.plot(values[place], errors[place], "o", ms=8, mfc="none", mec="C0")
        axis.set_xlabel(plain(key))
        axis.sharey(first)
    for axis in axes[panels:]:
        axis.set_axis_off()
    save_figure(figure, path)


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"{text[:15]}…"


def agreement(found: Selection, path: Path) -> None:
    """How far each run's encoder recognises each run's groups; the colours go from 0, guessing, to 1, never wrong."""
    from matplotlib.figure import Figure

    names, table = [plain(name) for name in short_names(found.names).values()], found.agreement.corrected
    side = 2.2 + 0.42 * len(names)
    figure = Figure(figsize=(side + 1, side), dpi=120, layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(table, cmap="viridis", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    for i, row in enumerate(table):
        for j, value in enumerate(row):
            shade = "black" if value > 0.6 else "white"
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6, color=shade)
    axis.set_xlabel("whose groups")
    axis.set_ylabel("whose encoder")
    figure.colorbar(drawn, label="recognised, 0 is guessing", shrink=0.8)
    save_figure(figure, path)
