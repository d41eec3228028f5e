"""`metagvae control`: whether named units do what their names say."""

from __future__ import annotations

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.outputs import check_writable, say


def control(
    runs: list[str],
    judge: str = "warp-protonet-omniglot",
    count: int = 300,
    episodes: int = 30,
    root: str | None = None,
    seed: int = 0,
    json: str | None = None,
) -> None:
    """Control of what a VAE draws, on test images: pose per named unit, identity kept, attributes set.

    Args:
        runs: shipped generators or folders of finished pretraining runs, one or more; a plain VAE's best unit for each
            pose is shown beside.
        judge: an encoder that says which class a moved image is of, by class means of 5 real images among 20 classes.
        count: test images to move.
        episodes: of the judge; each has one image of each of its classes.
        root: where the runs' images are; leave out to look under METAGVAE_DATA and ./data.
        seed: of episodes and networks.
        json: file to write results to.
    """
    from episodes.counter_rng import check_seed
    from metagvae import zoo
    from metagvae.studies.control_table import measure_control

    check_writable(json, inputs=[root, *runs])
    check_seed(seed, "--seed")
    if episodes < 2 or count < 10:
        raise InputError(f"control needs --episodes >= 2 and --count >= 10; received {episodes} and {count}.")
    found = measure_control([zoo.open(run) for run in runs], judge, count, episodes, seed, root)
    if json:
        found.save(expanded(json))
    say(found.text())
