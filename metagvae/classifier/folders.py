"""A folder of pictures, each class's examples in a folder of its own, and predictions for others into a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from episodes import InputError
from episodes.untrusted.archives import Source
from episodes.untrusted.class_folders import class_folders
from episodes.untrusted.faults import ReadFault
from episodes.untrusted.picture_files import find_pictures
from episodes.untrusted.sources import open_picture
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.storage.spreadsheet import write_table

_CHUNK = 256
COLUMNS = ("file", "prediction", "probability", "novelty", "second", "second_probability", "problem")


def fit_folder(classifier: FewShotClassifier, folder: str | Path) -> list[str]:
    """Fits a classifier on a folder (or a zip file) that holds one folder of pictures per class.

    The class folders are found as the data set ``folder`` finds them; of folders named for splits, all are taken.

    Returns:
        Sentences for whoever asked: what was left aside, which folders were passed through, which pictures cannot be
        read, and that there is only one class.

    Raises:
        InputError: if there are no class folders, or no picture of a class can be read.
    """
    source = Source(folder)
    try:
        found = class_folders(source, one_split_per_class=False)
        told = list(found.notes)
        if found.wrapper:
            told.append(f"the class folders are those in {found.wrapper}")
        if found.split:
            told.append(f"the class folders are those in {', '.join(sorted(set(found.split.values())))}")
        if found.only_one is not None:
            told.append(f"{found.only_one}, or every picture is given that one")
        images, labels, problems = [], [], []
        for label, name in sorted((label, name) for label, names in found.files.items() for name in names):
            try:
                images.append(open_picture(source.read(name), name).copy())
                labels.append(label)
            except ReadFault:
                raise
            except InputError as error:
                problems.append(f"left out: {error}")
        lost = sorted(set(found.files) - set(labels))
        if lost:
            raise InputError(f"no picture of the class {lost[0]!r} in {folder} can be read; {problems[0]}")
    finally:
        source.close()
    classifier.fit(images, labels)
    return told + problems


def predict_folder(classifier: FewShotClassifier, folder: str | Path, out: Path) -> tuple[int, int, list[str]]:
    """Writes a line for every picture under a folder or in a zip file, or for one picture: `COLUMNS`, by name.

    A picture that cannot be read has its line too, with the problem and no prediction.

    Returns:
        How many pictures there are, how many could not be read, and sentences on the files that are none.
    """
    source = Source(folder)
    rows: list[list[object]] = []
    try:
        names, told = find_pictures(source)
        if not names:
            raise InputError(f"{folder} holds no pictures.{''.join(f' ({note})' for note in told)}")
        for start in range(0, len(names), _CHUNK):
            rows += _rows(classifier, source, names[start : start + _CHUNK])
    finally:
        source.close()
    write_table(out, COLUMNS, rows)
    return len(names), sum(bool(row[-1]) for row in rows), told


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
