"""`metagvae fit-check`: what a folder of examples says about itself, and one HTML page of it."""

from __future__ import annotations

from episodes.errors import printable
from episodes.paths import expanded
from metagvae.cli.outputs import check_writable, say


def fit_check(folder: str, out: str = "fit-check.html", encoder: str = "auto", device: str = "auto") -> None:
    """Estimate the error on a folder of examples, what more images would bring, and find wrong labels and copies.

    Args:
        folder: a folder (or zip file) with one folder of example images per class, two images of each or more.
        out: the HTML file to write, with everything inside it.
        encoder: auto, which chooses handwriting or photos by the examples; or as metagvae predict takes it.
        device: auto | cpu | cuda.
    """
    from metagvae.report.fit_check import write_fit_check
    from metagvae.studies import fit_check as study

    check_writable(out, inputs=[folder, encoder])
    found = study.fit_check(folder, encoder, device)
    for told in found.examples.told + found.sentences():
        say(printable(told, lines=False))
    path = write_fit_check(found, folder, expanded(out))
    say(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB; it needs no other file")


def next_to_label(examples: str, pictures: str, count: int = 5, encoder: str = "auto") -> None:
    """Say which unlabelled images to label next: those that stand for most of the others.

    Args:
        examples: a folder (or zip file) with one folder of labelled images per class.
        pictures: a folder (or zip file) of images without labels.
        count: how many to name.
        encoder: auto, which chooses handwriting or photos by the examples; or as metagvae predict takes it.
    """
    from metagvae.studies.next_to_label import next_in_folder

    for file, taken, probability in next_in_folder(
        examples, pictures, count, encoder, lambda told: say(printable(told, lines=False))
    ):
        say(printable(f"{file}   now taken for {taken}, probability {100 * probability:.0f} %", lines=False))
