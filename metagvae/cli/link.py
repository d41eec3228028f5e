"""`metagvae link`: linked dictionaries, one modality in and the other out."""

from __future__ import annotations

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.outputs import check_figure, check_writable, say
from metagvae.studies.linked import Linking


def link(
    linking: Linking,
    pair: str = "strokes",
    data: str = "mnist",
    root: str | None = None,
    count: int = 20_000,
    json: str | None = None,
    figure: str | None = None,
) -> None:
    """Link the sparse codes of two modalities, and measure what one says of the other.

    Args:
        pair: strokes (Omniglot's images and the strokes of the pen) | labels (images and their labels).
        data: the data set of pair labels, whose splits hold the same classes.
        root: where the images are; leave out to look under METAGVAE_DATA and ./data.
        count: labelled training images of pair labels, evenly spread.
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
    if count < 100:
        raise InputError(f"--count must be at least 100; received {count}.")
    if pair == "strokes":
        strokes = link_strokes(linking, root)
        if json:
            strokes.save(expanded(json))
        say(strokes.table())
        if figure:
            figures.linked(strokes, expanded(figure))
        return
    dataset = make_dataset(data, root=root)
    labels = link_labels(dataset, linking.of_labels(), count, linking.seed)
    if json:
        labels.save(expanded(json))
    say(labels.table())
    if figure:
        figures.from_labels(labels, expanded(figure))
