"""`metagvae disentangle`: disentanglement scores beside few-shot error."""

from __future__ import annotations

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.outputs import check_figure, check_writable, say


def disentangle(
    encoder: list[str] | None = None,
    features: list[str] | None = None,
    pictures: str = "warped",
    data: str = "omniglot",
    root: str | None = None,
    rotations: str = "classes",
    way: int = 20,
    shot: int = 1,
    episodes: int = 1000,
    split: str = "test",
    count: int = 10_000,
    seed: int = 0,
    device: str = "auto",
    json: str | None = None,
    figure: str | None = None,
) -> None:
    """Disentanglement scores of encoders on pictures with known factors, beside their few-shot error.

    Args:
        encoder: pixels, pca, random, a shipped name, an encoder folder or a run folder; one or more.
        features: groups to score one by one, such as latent content; an encoder without one of them is left out
            there. Leave out for latent.
        pictures: warped (characters of --data under known rotation, scale and shift) | sprites (like dSprites).
        data: the data set of the characters and of the episodes; sprites have no episodes.
        root: where its pictures are; leave out to look under METAGVAE_DATA and ./data.
        rotations: none | classes | episode; of the episodes.
        way: classes per episode.
        shot: support pictures per class.
        episodes: how many.
        split: test | validation | train; of the characters and of the episodes.
        count: pictures to fit the scorers on; half as many others to score on.
        seed: of pictures and episodes.
        device: auto | cpu | cuda.
        json: file to write results to.
        figure: file (.png, .svg or .pdf) to draw scores against errors to.
    """
    from metagvae.compute.device import Device
    from metagvae.studies.disentangle import Scoring, score_encoders

    check_figure(figure)
    check_writable(json, figure, inputs=[root, *(encoder or [])])
    if figure and pictures == "sprites":
        raise InputError("a figure of scores against errors needs few-shot errors; sprites have none.")
    if not encoder:
        raise InputError("disentangle needs something to score: --encoder NAME, one or more.")
    scoring = Scoring(pictures, data, root, rotations, way, shot, episodes, split, count, seed)
    found = score_encoders(encoder, features or ["latent"], scoring, Device.choose(device))
    if json:
        found.save(expanded(json))
    say(found.table())
    if figure:
        from metagvae.report.figures import scores_against_errors

        scores_against_errors(found.rows, expanded(figure))
