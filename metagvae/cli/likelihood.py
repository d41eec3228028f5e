"""`metagvae likelihood`: importance-sampled log-likelihood of runs' VAEs."""

from __future__ import annotations

from episodes.paths import expanded
from metagvae.cli.options import DataOptions
from metagvae.cli.outputs import check_writable, say
from metagvae.studies.likelihood import Sampling


def likelihood(
    runs: list[str],
    data: DataOptions,
    sampling: Sampling,
    device: str = "auto",
    json: str | None = None,
) -> None:
    """Log-likelihood of test images or texts under runs' VAEs, with its standard error, and the use of their latents.

    Args:
        runs: one or more folders of finished runs with a decoder; the first is what the others are compared with.
        device: auto | cpu | cuda.
        json: file to write results to.
    """
    from metagvae.compute.device import Device
    from metagvae.studies.likelihood import likelihoods

    check_writable(json, inputs=[data.root, *runs])
    bank = data.dataset(runs, episodes=False).load(sampling.split)
    found = likelihoods(runs, bank, sampling, Device.choose(device, "float32"))
    if json:
        found.save(expanded(json))
    say(found.table())
