"""A folder of pictures, each class's examples in a folder of its own, and predictions for others into a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from episodes import InputError
from episodes.untrusted.sources import Source, is_picture, open_picture
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.storage.spreadsheet import write_table

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
        images, labels, problems = [], [], []
        for name in names:
            try:
                images.append(open_picture(source.read(name), name).copy())
                labels.append(name.partition("/")[0])
            except InputError as error:
                problems.append(str(error))
        lost = sorted({name.partition("/")[0] for name in names} - set(labels))
        if lost:
            raise InputError(f"no picture of the class {lost[0]!r} in {folder} can be read: {problems[0]}")
    finally:
        source.close()
    classifier.fit(images, labels)
    return problems


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
    images, problems = [], {}
    for name in names:
        try:
            images.append(open_picture(source.read(name), name))
        except InputError as error:
            problems[name] = str(error)
    readable = [name for name in names if name not in problems]
    rows: dict[str, list[object]] = {name: [name, "", "", "", "", "", problem] for name, problem in problems.items()}
    if images:
        said, novelty = classifier.predict(images), classifier.novelty(images)
        probabilities = classifier.predict_proba(images)
        for row, name in enumerate(readable):
            order = probabilities[row].argsort()[::-1]
            best, second = order[0], order[1] if len(order) > 1 else None
            rows[name] = [
                name,
                said[row],
                f"{probabilities[row, best]:.4f}",
                f"{novelty[row]:.3f}",
                classifier.classes_[second] if second is not None else "",
                f"{probabilities[row, second]:.4f}" if second is not None else "",
                "",
            ]
    return [rows[name] for name in names]
