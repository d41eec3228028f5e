"""`metagvae refine`: short-run inference on a trained run's images at test time."""

from __future__ import annotations

from typing import Any

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.options import DataOptions, EpisodeOptions
from metagvae.cli.outputs import check_figure, check_writable, say


def refine(
    run: str,
    data: DataOptions,
    episodes: EpisodeOptions,
    steps: list[int] | None = None,
    options: dict[str, Any] | None = None,
    features: list[str] | None = None,
    images: int = 1000,
    device: str = "auto",
    json: str | None = None,
    figure: str | None = None,
    out: str | None = None,
) -> None:
    """Refinement of a run's encoder by gradient steps through its decoder: the bound and the few-shot error by steps.

    Args:
        run: the folder of a finished run with a decoder.
        steps: numbers of steps to measure, 0 being the encoder alone; leave out for 0 1 2 5 10 20.
        options: of short-run inference, such as step, temperature and chains; the numbers of steps are --steps.
        features: what the encoder returns: latent, or groups such as content; leave out for its own choice.
        images: how many, evenly spread over the split, the reconstruction and the KL are measured on.
        device: auto | cpu | cuda.
        json: file to write results to.
        figure: file (.png, .svg or .pdf) to draw the curve to.
        out: folder to write the encoder to, refined by the last of the steps; load_encoder and evaluate take it.
    """
    from metagvae.compute.device import Device
    from metagvae.studies.refine import refinement_curve, save_refined

    check_figure(figure)
    counts = steps or [0, 1, 2, 5, 10, 20]
    if out and (counts[-1] < 1 or expanded(out).exists()):
        raise InputError(f"--out takes a new folder and a last number of steps above 0; received {out}, {counts[-1]}.")
    check_writable(json, figure, out, inputs=[data.root, run])
    dataset, chosen = data.dataset([run]), Device.choose(device)
    found = refinement_curve(run, counts, dict(options or {}), dataset, episodes.protocol, features, images, chosen)
    if json:
        found.save(expanded(json))
    say(found.table())
    if figure:
        from metagvae.report.figures import refinement

        refinement(found, expanded(figure))
    if out:
        save_refined(run, {**(options or {}), "steps": counts[-1]}, out)
        say(f"wrote the refined encoder to {out}")
