"""`metagvae likelihood`: importance-sampled log-likelihood of runs' VAEs."""

from __future__ import annotations

from typing import Any

from episodes.paths import expanded
from metagvae.cli.outputs import check_writable, say


def likelihood(
    runs: list[str],
    data: str | None = None,
    root: str | None = None,
    data_options: dict[str, Any] | None = None,
    images: int = 100,
    samples: int = 1000,
    chains: int = 64,
    steps: int = 40,
    annealed: int = 10,
    temperatures: int = 400,
    split: str = "test",
    binarise: bool | None = None,
    seed: int = 0,
    device: str = "auto",
    json: str | None = None,
) -> None:
    """Log-likelihood of test images under the VAEs of runs, with its standard error, and the use of their latents.

    Args:
        runs: one or more folders of finished runs with a decoder; the first is what the others are compared with.
        data: a registered data set; leave out for the first run's.
        root: where its pictures are; leave out to look under METAGVAE_DATA and ./data.
        data_options: further options of that data set.
        images: how many, evenly spread over the split.
        samples: draws per image for importance sampling.
        chains: Langevin chains per image that the proposal is fitted to.
        steps: moves of a chain in each of three rounds.
        annealed: of how many images annealed importance sampling gives a second opinion; 0 for none.
        temperatures: of the annealing.
        split: test | validation | train.
        binarise: take pixels at or above half as 1, others as 0; leave out to do so for a Bernoulli likelihood, of
            which grey pixels have no density.
        seed: of all draws; what an image gets does not depend on the others.
        device: auto | cpu | cuda.
        json: file to write results to.
    """
    from metagvae.compute.device import Device
    from metagvae.studies.likelihood import Sampling, likelihoods
    from metagvae.studies.measured_data import choose_dataset

    check_writable(json, inputs=[root, *runs])
    sampling = Sampling(images, samples, chains, steps, annealed, temperatures, split, binarise, seed)
    bank = choose_dataset(runs, data, root, None, None, data_options).load(split)
    found = likelihoods(runs, bank, sampling, Device.choose(device, "float32"))
    if json:
        found.save(expanded(json))
    say(found.table())
