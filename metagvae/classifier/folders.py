"""A folder of pictures, each class's examples in a folder of its own, and predictions for others into a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from episodes import InputError
from episodes.untrusted.sources import Source, is_picture, open_picture
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.classifier.pictures import Pictures
from metagvae.storage.spreadsheet import write_table
from metagvae.zoo.load import read_card

_CHUNK = 256
COLUMNS = ("file", "prediction", "probability", "novelty", "second", "second_probability", "problem")


def fit_folder(classifier: FewShotClassifier, folder: str | Path) -> list[str]:
    """Fits a classifier on a folder (or a zip file) that holds one folder of pictures per class.

    Returns:
        A sentence for each picture that cannot be read; they are left out.

    Raises:
        InputError: if there are no class folders, or no picture of a class can be read.
    """
    source = Source(folder)
    try:
        names = [name for name in source.names if is_picture(name) and "/" in name]
        if not names:
            raise InputError(f"{folder} has no class folders with pictures; put each class's into a folder of its own.")
        problems: dict[int, str] = {}
        images = classifier.collect(_opened(source, names), problems)
        labels = [name.partition("/")[0] for number, name in enumerate(names) if number not in problems]
        lost = sorted({name.partition("/")[0] for name in names} - set(labels))
        if lost:
            raise InputError(f"no picture of the class {lost[0]!r} in {folder} can be read: {min(problems.items())[1]}")
    finally:
        source.close()
    classifier.fit(images, labels)
    return list(problems.values())


def _opened(source: Source, names: Sequence[str]) -> Iterator[Callable[[], Image.Image]]:
    """The pictures one after the other, each opened when it is called for: a photograph at full size is large."""

    def opener(name: str) -> Callable[[], Image.Image]:
        return lambda: open_picture(source.read(name), name)

    return map(opener, names)


def classes_trained_on(encoder: str | Path, classes: Iterable[str]) -> list[str]:
    """Those of the classes whose names an encoder's card has among the ones it was trained on.

    An error on examples of these is in-sample: new pictures come out worse.
    """
    trained = read_card(encoder).trained_classes.values()
    return sorted({str(name) for name in classes} & {name for names in trained for name in names})


def predict_folder(classifier: FewShotClassifier, folder: str | Path, out: Path) -> tuple[int, int]:
    """Writes a line for every picture under a folder (or in a zip file): `COLUMNS`, in the order of the names.

    A picture that cannot be read has its line too, with the problem and no prediction.

    Returns:
        How many pictures there are, and how many could not be read.
    """
    source = Source(folder)
    rows: list[list[object]] = []
    try:
        names = [name for name in source.names if is_picture(name)]
        if not names:
            raise InputError(f"{folder} holds no pictures.")
        for start in range(0, len(names), _CHUNK):
            rows += _rows(classifier, source, names[start : start + _CHUNK])
    finally:
        source.close()
    write_table(out, COLUMNS, rows)
    return len(names), sum(bool(row[-1]) for row in rows)


def _rows(classifier: FewShotClassifier, source: Source, names: Sequence[str]) -> list[list[object]]:
    problems: dict[int, str] = {}
    try:
        images = classifier.collect(_opened(source, names), problems)
        answered = iter(list(_answered(classifier, images)))  # now, so that it fails here
    except InputError as error:
        if len(names) > 1:  # one of them spoils the rest, by its numbers' scale perhaps
            return [row for name in names for row in _rows(classifier, source, [name])]
        problems, answered = {0: str(error)}, iter(())
    return [
        [name, "", "", "", "", "", problems[number]] if number in problems else [name, *next(answered), ""]
        for number, name in enumerate(names)
    ]


def _answered(classifier: FewShotClassifier, images: Pictures) -> Iterator[list[object]]:
    """All of a line but its file and problem."""
    logits, novelty = classifier.ask(images)
    said, probabilities = classifier.said(logits, novelty), logits.softmax(1).numpy()
    for label, row, far in zip(said, probabilities, novelty.tolist(), strict=True):
        order = row.argsort()[::-1]
        second = [classifier.classes_[order[1]], f"{row[order[1]]:.4f}"] if len(order) > 1 else ["", ""]
        yield [label, f"{row[order[0]]:.4f}", f"{far:.3f}", *second]
