"""`metagvae select`: the best of several runs, chosen without a label."""

from __future__ import annotations

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.options import DataOptions
from metagvae.cli.outputs import check_figure, check_link, check_writable, make_link, say


def select(
    runs: list[str],
    data: DataOptions,
    by: str = "views",
    split: str = "validation",
    groups: int = 120,
    images: int = 32,
    seed: int = 0,
    device: str = "auto",
    link: str | None = None,
    json: str | None = None,
    figure: str | None = None,
) -> None:
    """Choose the best of several pretraining runs without a label, and print what every criterion says of each.

    Args:
        runs: two or more folders of finished pretraining runs of the same kind of images.
        by: views (error on warped single images) | centrality | udr_lasso | udr_spearman | elbo.
        split: validation | test | train; no label of it is looked at.
        groups: that each run draws for ModelCentrality.
        images: of a group.
        seed: of images, warps and groups.
        device: auto | cpu | cuda.
        link: a symbolic link to make to the chosen run; one that is there is replaced.
        json: file to write every number to.
        figure: file (.png, .svg or .pdf) to draw the agreement of the runs to.
    """
    from metagvae.compute.device import Device
    from metagvae.studies.selection import CRITERIA
    from metagvae.studies.selection import select as choose

    check_figure(figure)
    check_writable(json, figure, inputs=[data.root, *runs])
    if by not in CRITERIA:
        raise InputError(f"--by must be one of {', '.join(CRITERIA)}; received {by!r}.")
    check_link(link, json, figure)
    found = choose(runs, data.dataset(runs, episodes=False).load(split), groups, images, seed, Device.choose(device))
    if json:
        found.save(expanded(json))
    say(found.table())
    if figure:
        from metagvae.report.figures import agreement

        agreement(found, expanded(figure))
    chosen = runs[found.best(by)]
    say(f"chosen by {CRITERIA[by][0]}: {chosen}")
    if link is not None:
        make_link(link, chosen)
        say(f"{link} now points to it")
