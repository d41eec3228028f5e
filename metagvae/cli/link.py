"""`metagvae link`: linked dictionaries, one modality in and the other out."""

from __future__ import annotations

from dataclasses import fields

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.outputs import check_figure, check_writable, say
from metagvae.studies.linked import Linking

_OF = {  # options that one pair alone uses
    "strokes": ("atoms_of_strokes", "bins", "reach"),
    "labels": ("data", "count", "grid", "cell", "components"),
}


def link(
    linking: Linking,
    pair: str = "strokes",
    data: str | None = None,
    root: str | None = None,
    count: int | None = None,
    json: str | None = None,
    figure: str | None = None,
) -> None:
    """Link the sparse codes of two modalities, and measure what one says of the other.

    Args:
        pair: strokes (Omniglot's images and the strokes of the pen) | labels (images and their labels).
        data: the data set of pair labels, whose splits hold the same classes; leave out for mnist.
        root: where the images are; leave out to look under METAGVAE_DATA and ./data.
        count: labelled training images of pair labels, evenly spread; leave out for 20,000.
        json: file to write results to.
        figure: file (.png, .svg or .pdf) to draw what went in and what came out to.
    """
    from episodes.datasets import make_dataset
    from metagvae.report import figures
    from metagvae.studies.linked import link_strokes
    from metagvae.studies.linked_labels import link_labels

    check_figure(figure)
    check_writable(json, figure, inputs=[root])
    if pair not in ("strokes", "labels"):
        raise InputError(f"--pair must be 'strokes' or 'labels'; received {pair!r}.")
    _check_used(linking, pair, data, count)
    if count is not None and count < 100:
        raise InputError(f"--count must be at least 100; received {count}.")
    if pair == "strokes":
        strokes = link_strokes(linking, root)
        if json:
            strokes.save(expanded(json))
        say(strokes.table())
        if figure:
            figures.linked(strokes, expanded(figure))
        return
    dataset = make_dataset(data or "mnist", root=root)
    labels = link_labels(dataset, linking.of_labels(), count or 20_000, linking.seed)
    if json:
        labels.save(expanded(json))
    say(labels.table())
    if figure:
        figures.from_labels(labels, expanded(figure))


def _check_used(linking: Linking, pair: str, data: str | None, count: int | None) -> None:
    """Raises `InputError` if an option was set that only the other pair uses."""
    given = {field.name for field in fields(linking) if getattr(linking, field.name) != field.default}
    given |= {name for name, value in (("data", data), ("count", count)) if value is not None}
    for other, names in _OF.items():
        for name in names:
            if other != pair and name in given:
                raise InputError(f"--{name} goes with --pair {other}; received --pair {pair}.")
