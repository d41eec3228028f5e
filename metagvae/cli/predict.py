"""`metagvae predict`: a folder of pictures into a table, from a few examples of each class."""

from __future__ import annotations

from episodes.errors import printable
from episodes.paths import expanded
from metagvae.cli.outputs import check_writable, say


def predict(
    examples: str,
    pictures: str,
    out: str = "predictions.csv",
    encoder: str = "handwriting",
    head: str = "prototype",
    features: list[str] | None = None,
    invert: bool | None = None,
    none_label: str | None = None,
    device: str = "auto",
) -> None:
    """Say of every picture in a folder which class's examples it is like, into a csv file.

    Args:
        examples: a folder (or zip file) with one folder of example pictures per class.
        pictures: the folder (or zip file) to predict; sub-folders too.
        out: the csv file: file, prediction, its probability, novelty (above 1: like none), the second best, problem.
        encoder: auto, which chooses handwriting or photos by the examples; a shipped name (photos for photographs),
            an encoder or run folder, timm:NAME, torchvision:NAME or hub:ID.
        head: prototype | ridge.
        features: what the encoder returns; leave out for its own choice.
        invert: turn bright into dark; leave out to judge by the pictures' borders.
        none_label: what to say of pictures whose novelty is above 1; leave out to always name a class.
        device: auto | cpu | cuda.
    """
    from metagvae.classifier.choice import AUTO
    from metagvae.classifier.estimator import FewShotClassifier
    from metagvae.classifier.folders import classes_trained_on, fit_folder, predict_folder

    check_writable(out, inputs=[examples, pictures, encoder])
    classifier = FewShotClassifier(
        encoder,
        head,
        features=features,
        invert="auto" if invert is None else invert,
        none_label=none_label,
        device=device,
    )
    for told in fit_folder(classifier, examples).told:
        say(printable(f"{examples}: {told}", lines=False))
    if encoder == AUTO:
        say(classifier.choice_.sentence())
        encoder = classifier.choice_.encoder
    if classifier.left_out_error_ == classifier.left_out_error_:  # no number with one example per class
        say(f"examples put into a wrong class by the others: {100 * classifier.left_out_error_:.1f} %")
        trained = classes_trained_on(encoder, classifier.classes_)
        if trained:
            say(
                f"that figure is in-sample, too low: {encoder} was trained on {len(trained)} of these "
                f"{len(classifier.classes_)} classes, {trained[0]!r} among them. New pictures come out worse."
            )
    count, broken, aside = predict_folder(classifier, pictures, expanded(out))
    for told in aside:
        say(printable(f"{pictures}: {told}", lines=False))
    known = f"{len(classifier.classes_)} classes of {len(classifier.labels_)} examples"
    say(f"{count} pictures, {broken} of them unreadable, {known}: {out}")
