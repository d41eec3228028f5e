"""`metagvae export-classifier`: a whole classifier as one page that works offline, or as one ONNX file."""

from __future__ import annotations

from episodes.errors import InputError, printable
from episodes.paths import expanded
from metagvae.cli.outputs import check_writable, say


def export_classifier(
    source: str,
    out: str,
    encoder: str | None = None,
    none_label: str | None = None,
    invert: bool | None = None,
    title: str | None = None,
    runtime: str | None = None,
) -> None:
    """Write a classifier as one HTML page that classifies uploads, drawings and camera images, or as one ONNX file.

    Args:
        source: a folder (or zip file) with one folder of example images per class; or a folder that a classifier was
            saved in, which keeps its own settings.
        out: the .html or .onnx file.
        encoder: a shipped name, an encoder or run folder, timm:NAME, torchvision:NAME or hub:ID; leave out for
            handwriting.
        none_label: what to say of images that are like no class; leave out for "none of these".
        invert: turn bright into dark; leave out to judge by the images' borders.
        title: the page's heading; leave out for the source's name.
        runtime: the folder of the npm package onnxruntime-web, unpacked; leave out to fetch it once.
    """
    from metagvae.classifier.estimator import DEFAULT_ENCODER, FewShotClassifier
    from metagvae.classifier.files import SETTINGS
    from metagvae.classifier.folders import fit_folder
    from metagvae.classifier.page import write_onnx, write_page

    path = expanded(out)
    if path.suffix.lower() not in (".html", ".onnx"):
        raise InputError(f"a classifier is written as an .html or .onnx file; received {out}.")
    place, page = expanded(source), path.suffix.lower() == ".html"
    saved = (place / SETTINGS).is_file()
    for name, value in (("encoder", encoder), ("none_label", none_label), ("invert", invert)):
        if saved and value is not None:
            raise InputError(f"{source} is a saved classifier, which keeps its own settings; leave out --{name}.")
    for name, value in (("title", title), ("runtime", runtime)):
        if not page and value is not None:
            raise InputError(f"--{name} is of a page, and {out} is none; leave it out, or write an .html file.")
    encoder = encoder or DEFAULT_ENCODER
    check_writable(out, inputs=[source, encoder])
    if saved:
        classifier = FewShotClassifier.load(place)
    else:
        classifier = FewShotClassifier(encoder, invert="auto" if invert is None else invert, none_label=none_label)
        for told in fit_folder(classifier, source).told:
            say(printable(f"{source}: {told}", lines=False))
    if page:
        write_page(classifier, path, title or place.stem, expanded(runtime) if runtime is not None else None)
    else:
        write_onnx(classifier, path)
    known = f"{len(classifier.classes_)} classes of {len(classifier.labels_)} examples"
    say(f"wrote {out}, {path.stat().st_size / 10**6:.1f} MB, {known}")
