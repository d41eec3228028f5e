"""`metagvae sampling`: how far a VAE's samples are from real images."""

from __future__ import annotations

from episodes.paths import expanded
from metagvae.cli.outputs import check_figure, check_writable, say
from metagvae.studies.sampling import Samples


def sampling(
    runs: list[str],
    samples: Samples,
    root: str | None = None,
    json: str | None = None,
    figure: str | None = None,
) -> None:
    """Samples against real images: Frechet and kernel distance, precision and recall, a discriminator's accuracy.

    Args:
        runs: shipped generators or folders of finished pretraining runs; the others are compared with the first, runs
            named NAME-seedN with the first of their seed.
        root: where the first run's images are; leave out to look under METAGVAE_DATA and ./data.
        json: file to write results to.
        figure: .png, .svg or .pdf file to draw samples to, each above the nearest training image.
    """
    from metagvae import zoo
    from metagvae.report.figures import nearest_images
    from metagvae.studies.sampling import measure_samples

    check_figure(figure)
    check_writable(json, figure, inputs=[root, *runs])
    opened = [zoo.open(run) for run in runs]
    found = measure_samples(opened, samples, root)
    if json:
        found.save(expanded(json))
    say(found.text())
    if figure:
        train = opened[0].dataset(root=root).load("train")
        shown = {run.name: run.vae() for run in opened}
        nearest_images(shown, train, expanded(figure), samples.temperature, samples.seed)
