"""`metagvae evaluate`: few-shot error of runs and encoders."""

from __future__ import annotations

from typing import Any

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.outputs import check_figure, check_writable, say


def evaluate(
    data: str | None = None,
    root: str | None = None,
    size: int | None = None,
    rotations: str | None = None,
    data_options: dict[str, Any] | None = None,
    run: list[str] | None = None,
    encoder: list[str] | None = None,
    features: list[str] | None = None,
    learner: list[str] | None = None,
    head: str | None = None,
    head_options: dict[str, Any] | None = None,
    way: list[int] | None = None,
    shot: list[int] | None = None,
    query: int = 15,
    episodes: int = 1000,
    seed: int = 0,
    split: str = "test",
    fit_data: str | None = None,
    within: str | None = None,
    same_hands: bool = False,
    warps: int = 0,
    unit: str | None = None,
    device: str = "auto",
    json: str | None = None,
    figure: str | None = None,
) -> None:
    """Few-shot error of runs and encoders on the same episodes, with intervals and paired differences.

    Args:
        data: a registered data set; leave out for the first run's. What is not said of a run's own data set is
            taken from the run.
        root: where its pictures are; leave out to look under METAGVAE_DATA and ./data.
        size: side of the pictures in pixels; leave out for the data set's usual one, or of a folder the encoder's.
        rotations: none | classes | episode.
        data_options: further options of that data set.
        run: folders of finished runs; errors of names that differ in a trailing -seedN are averaged, and A+B is one
            method with the features of both side by side.
        encoder: pixels, pca, random, a shipped name, an encoder folder or a run folder.
        features: what encoders return: latent, backbone, or groups such as content.
        learner: for --encoder, a row for each: prototypes | ridge | soft-k-means | easyfsl:METHOD (such as
            easyfsl:SimpleShot); leave out for prototypes.
        head: the same of one, as it was called before.
        head_options: options of that learner, such as distance: cosine.
        way: classes per episode, one or more numbers; leave out for 5, or what the data set prescribes.
        shot: support pictures per class, one or more numbers; leave out for 1, or what the data set prescribes.
        query: query pictures per class.
        episodes: how many episodes per shape.
        seed: of the episodes; the same seed gives the same episodes everywhere.
        split: test | validation | train.
        fit_data: the data set whose training split pca and random are fitted on; leave out for --data.
        within: an attribute, such as alphabet, that all classes of an episode share.
        same_hands: with within, take the pictures of the same numbers from every class.
        warps: average each picture's features with those of so many mildly warped copies.
        unit: what the interval over classes is taken by: class, or an attribute such as alphabet; leave out for the
            alphabet or script where the classes have one, else class.
        device: auto | cpu | cuda.
        json: file to write results to.
        figure: file (.png, .svg or .pdf) to draw error bars to.
    """
    from episodes.datasets import make_dataset
    from episodes.shape import Within
    from metagvae.compute.device import Device
    from metagvae.compute.processes import ranks
    from metagvae.studies.compare import choose_dataset, compare
    from metagvae.studies.own_images import as_encoders_take

    check_figure(figure)
    if same_hands and not within:
        raise InputError("--same_hands goes with --within ATTRIBUTE, such as --within alphabet.")
    sources = [*(run or []), *(encoder or [])]
    dataset = choose_dataset(sources, data, root, size, rotations, data_options)
    check_writable(json, figure, inputs=[*sources, dataset.root, getattr(dataset, "splits_csv", None)])
    dataset = as_encoders_take(dataset, sources, split, size, data_options or {})
    comparison = compare(
        dataset,
        encoders=encoder or [],
        runs=run or [],
        ways=way,
        shots=shot,
        query=query,
        episodes=episodes,
        seed=seed,
        split=split,
        heads=learner or [head or "prototypes"],
        head_options=head_options,
        features=features,
        device=Device.choose(device),
        fit_data=make_dataset(fit_data, size=dataset.side) if fit_data else None,
        within=Within(within, same_hands=same_hands) if within else None,
        warps=warps,
        unit=unit,
        progress=True,
    )
    if not ranks().main:
        return
    if json:  # first of all: what was measured must not be lost to what follows
        comparison.save(expanded(json))
    say(comparison.table())
    if figure:
        from metagvae.report.figures import error_bars

        error_bars(comparison.results, expanded(figure))
