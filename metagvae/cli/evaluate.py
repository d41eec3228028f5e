"""`metagvae evaluate`: few-shot error of runs and encoders."""

from __future__ import annotations

from episodes.paths import expanded
from metagvae.cli.options import DataOptions, EpisodeOptions
from metagvae.cli.outputs import check_figure, check_writable, say
from metagvae.studies.protocol import Head


def evaluate(
    images: DataOptions,
    episodes: EpisodeOptions,
    head: Head,
    run: list[str] | None = None,
    encoder: list[str] | None = None,
    fit_data: str | None = None,
    device: str = "auto",
    json: str | None = None,
    figure: str | None = None,
) -> None:
    """Few-shot error of runs and encoders on the same episodes, with intervals and paired differences.

    Args:
        run: folders of finished runs; errors of names that differ in a trailing -seedN are averaged, and A+B is one
            method with the features of both side by side.
        encoder: pixels, pca, random, a shipped name, an encoder folder or a run folder.
        fit_data: the data set whose training split pca and random are fitted on; leave out for --data.
        device: auto | cpu | cuda.
        json: file to write results to.
        figure: file (.png, .svg or .pdf) to draw error bars to.
    """
    from episodes.datasets import make_dataset
    from metagvae.compute.device import Device
    from metagvae.compute.processes import ranks
    from metagvae.studies.compare import compare
    from metagvae.studies.own_images import as_encoders_take

    check_figure(figure)
    runs, encoders = run or [], encoder or []
    sources, options = [*runs, *encoders], images.data_options or {}
    dataset = images.dataset(sources)
    check_writable(json, figure, inputs=[*sources, dataset.root, getattr(dataset, "splits_csv", None)])
    dataset = as_encoders_take(dataset, sources, episodes.split, images.size, options)
    fitted_on = make_dataset(fit_data, size=dataset.side) if fit_data else None
    comparison = compare(
        dataset, encoders, runs, episodes.protocol, head, fitted_on, Device.choose(device), progress=True
    )
    if not ranks().main:
        return
    if json:  # first of all: what was measured must not be lost to what follows
        comparison.save(expanded(json))
    say(comparison.table())
    if figure:
        from metagvae.report.figures import error_bars

        error_bars(comparison.results, expanded(figure))
