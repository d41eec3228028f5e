"""`metagvae sampling`: how far a VAE's samples are from real images."""

from __future__ import annotations

from episodes.paths import expanded
from metagvae.cli.outputs import check_figure, check_writable, say


def sampling(
    runs: list[str],
    judge: str = "warp-protonet-omniglot",
    count: int = 2000,
    temperature: float = 1.0,
    root: str | None = None,
    seed: int = 0,
    json: str | None = None,
    figure: str | None = None,
) -> None:
    """Samples against test images: Frechet and kernel distance, precision and recall, a discriminator's accuracy.

    Args:
        runs: shipped generators or folders of finished pretraining runs; the others are compared with the first.
        judge: an encoder whose backbone gives the features; lenet trains one on the training images' classes (28 x 28).
        count: samples of each, and test images.
        temperature: divides the logits before the sigmoid; below 1 draws harder edges.
        root: where the first run's images are; leave out to look under METAGVAE_DATA and ./data.
        seed: of all draws.
        json: file to write results to.
        figure: .png, .svg or .pdf file to draw samples to, each above the nearest training image.
    """
    from metagvae import zoo
    from metagvae.report.figures import nearest_images
    from metagvae.studies.sampling import measure_samples

    check_figure(figure)
    check_writable(json, figure, inputs=[root, *runs])
    opened = [zoo.open(run) for run in runs]
    found = measure_samples(opened, judge, count, temperature, seed, root)
    if json:
        found.save(expanded(json))
    say(found.text())
    if figure:
        train = opened[0].dataset(root=root).load("train")
        nearest_images({run.name: run.vae() for run in opened}, train, expanded(figure), temperature, seed)
