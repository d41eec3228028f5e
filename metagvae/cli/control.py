"""`metagvae control`: whether named units do what their names say."""

from __future__ import annotations

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.outputs import check_writable, say
from metagvae.studies.identity import Trial


def control(
    runs: list[str],
    trial: Trial,
    count: int = 300,
    root: str | None = None,
    json: str | None = None,
) -> None:
    """Control of what a VAE draws, on test images: pose per named unit, identity kept, attributes set.

    Args:
        runs: shipped generators or folders of finished pretraining runs, one or more; a plain VAE's best unit for each
            pose is shown beside.
        count: test images to move.
        root: where the runs' images are; leave out to look under METAGVAE_DATA and ./data.
        json: file to write results to.
    """
    from metagvae import zoo
    from metagvae.studies.control_table import measure_control

    check_writable(json, inputs=[root, *runs])
    if count < 10:
        raise InputError(f"control needs --count >= 10; received {count}.")
    found = measure_control([zoo.open(run) for run in runs], count, trial, root)
    if json:
        found.save(expanded(json))
    say(found.text())
