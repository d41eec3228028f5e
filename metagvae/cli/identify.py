"""`metagvae identify mixtures` and `metagvae identify warps`: are latent units the true components, one by one?"""

from __future__ import annotations

from episodes.paths import expanded
from metagvae.cli.outputs import check_figure, check_writable, say
from metagvae.studies.mixtures import Mixture


def identify_mixtures(
    mixture: Mixture,
    samples: list[int] | None = None,
    width: list[int] | None = None,
    mixtures: int = 5,
    restarts: int = 4,
    steps: int = 2000,
    json: str | None = None,
    figure: str | None = None,
) -> None:
    """Sources of synthetic mixtures, found by contrast between segments; see the page Components one by one.

    Args:
        samples: numbers of rows to learn from; leave out for 1000 4000 16000 64000.
        width: of the networks tried; leave out for 16 64 128.
        mixtures: how many, each with a mixing of its own, from the seed on.
        restarts: trainings of each width; the best by the contrast of rows held out counts.
        steps: of each training.
        json: file to write results to.
        figure: file (.png, .svg or .pdf) to draw the curve to.
    """
    from metagvae.studies.identify import Curve, Learning, curve

    check_figure(figure)
    check_writable(json, figure)
    learning = Learning(tuple(width or (16, 64, 128)), restarts, steps)
    found = Curve(mixture, learning)
    for finding in curve(mixture, samples or [1000, 4000, 16_000, 64_000], mixtures, learning):
        found.findings.append(finding)
        say(
            f"{finding.rows:,} rows, mixture {finding.mixture}: MCC {finding.mcc:.3f} (width {finding.width}); "
            f"FastICA {finding.fast_ica:.3f}, untrained {finding.untrained:.3f}, shuffled {finding.shuffled:.3f}",
            flush=True,
        )
        if json:
            found.save(expanded(json))
    say(found.table())
    if figure:
        from metagvae.report.identifiability import identifiability_curve

        identifiability_curve(found.findings, expanded(figure))


def identify_warps(
    runs: list[str],
    units: list[str] | None = None,
    split: str = "test",
    seed: int = 0,
    device: str = "auto",
    json: str | None = None,
    figure: str | None = None,
) -> None:
    """Correlation of single latent units with the parameters of warps, on images of unseen classes.

    Args:
        runs: folders of runs that warped their images, such as those of warp_pairs or auxiliary_contrast.
        units: groups of latent units to look among; leave out for geometry.
        split: test | validation | train; whose images are warped.
        seed: of the warps.
        device: auto | cpu | cuda.
        json: file to write results to.
        figure: file (.png, .svg or .pdf) to draw the correlations of every unit with every parameter to.
    """
    from metagvae import zoo
    from metagvae.compute.device import Device
    from metagvae.studies.warp_units import save, table, warp_units

    check_figure(figure)
    check_writable(json, figure, inputs=runs)
    chosen = Device.choose(device)
    opened = [zoo.open(run) for run in runs]
    found = [warp_units(trained, group, split, seed, chosen) for trained in opened for group in (units or ["geometry"])]
    say(table(found))
    if json:
        save(found, expanded(json))
    if figure:
        from metagvae.report.identifiability import warp_correlations

        warp_correlations(found, expanded(figure))
