"""`metagvae disentangle`: disentanglement scores beside few-shot error."""

from __future__ import annotations

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.outputs import check_figure, check_writable, say
from metagvae.studies.protocol import Scoring


def disentangle(
    scoring: Scoring,
    encoder: list[str] | None = None,
    features: list[str] | None = None,
    device: str = "auto",
    json: str | None = None,
    figure: str | None = None,
) -> None:
    """Disentanglement scores of encoders on images with known factors, beside their few-shot error.

    Args:
        encoder: pixels, pca, random, a shipped name, an encoder folder or a run folder; one or more.
        features: groups to score one by one, such as latent content; an encoder without one of them is left out
            there. Leave out for latent.
        device: auto | cpu | cuda.
        json: file to write results to.
        figure: file (.png, .svg or .pdf) to draw scores against errors to.
    """
    from metagvae.compute.device import Device
    from metagvae.studies.disentangle import score_encoders

    check_figure(figure)
    check_writable(json, figure, inputs=[scoring.root, *(encoder or [])])
    if figure and scoring.pictures == "sprites":
        raise InputError("a figure of scores against errors needs few-shot errors; sprites have none.")
    if not encoder:
        raise InputError("disentangle needs something to score: --encoder NAME, one or more.")
    found = score_encoders(encoder, features or ["latent"], scoring, Device.choose(device))
    if json:
        found.save(expanded(json))
    say(found.table())
    if figure:
        from metagvae.report.figures import scores_against_errors

        scores_against_errors(found.rows, expanded(figure))
