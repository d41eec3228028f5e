"""A folder of pictures, each class's examples in a folder of its own, and predictions for others into a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from PIL import Image

from episodes import InputError
from episodes.untrusted.archives import Source
from episodes.untrusted.class_folders import class_folders
from episodes.untrusted.faults import ReadFault
from episodes.untrusted.picture_files import find_pictures
from episodes.untrusted.sources import open_picture
from metagvae import zoo
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.classifier.inputs import collect_each
from metagvae.classifier.pictures import Pictures
from metagvae.storage.spreadsheet import write_table
from metagvae.zoo.trained import Trained

_CHUNK = 256
COLUMNS = ("file", "prediction", "probability", "novelty", "second", "second_probability", "problem")


@dataclass(frozen=True)
class Examples:
    """The pictures of a folder of classes, brought to an encoder's size.

    Args:
        images: those that could be read.
        labels, files: of each, its class and its name in the folder.
        told: sentences for whoever asked: what was left aside, which folders were passed through, which pictures
            cannot be read, and that there is only one class.
    """

    images: Pictures
    labels: list[str]
    files: list[str]
    told: list[str]


def read_examples(folder: str | Path, channels: int, size: int) -> Examples:
    """The pictures of a folder (or a zip file) that holds one folder of pictures per class.

    The class folders are found as the data set ``folder`` finds them; of folders named for splits, all are taken.

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
        pairs: list[tuple[str, str]] = []
        images, faults = [], list[ReadFault]()
        for label, names in sorted(found.files.items()):
            own, problems = sorted(names), dict[int, str]()
            try:
                images.append(collect_each(_opened(source, own, faults), channels, size, problems))
            except InputError as error:
                if faults:  # the disk's error, and not the picture's
                    raise faults[0] from error
                raise InputError(f"no picture of the class {label!r} in {folder} can be read: {error}") from error
            pairs += [(label, name) for number, name in enumerate(own) if number not in problems]
            told += [f"left out: {problem}" for problem in problems.values()]
        if faults:
            raise faults[0]
    finally:
        source.close()
    return Examples(Pictures.join(images), [label for label, _ in pairs], [name for _, name in pairs], told)


def fit_folder(classifier: FewShotClassifier, folder: str | Path) -> Examples:
    """Fits a classifier on a folder of classes, its encoder chosen by the pictures if that is ``auto``.

    Raises:
        InputError: as `read_examples`.
    """
    read = cache(partial(read_examples, folder))

    def given(channels: int, size: int) -> tuple[Pictures, list[str]]:
        examples = read(channels, size)
        return examples.images, examples.labels

    config = classifier.open_for(given).config
    examples = read(config.channels, config.size)
    classifier.fit(examples.images, examples.labels)
    return examples


def _opened(
    source: Source, names: Sequence[str], faults: list[ReadFault] | None = None
) -> Iterator[Callable[[], Image.Image]]:
    """The pictures one after the other, each opened when it is called for: a photograph at full size is large.

    Args:
        faults: gets the errors of the disk, which are raised too.
    """

    def opener(name: str) -> Callable[[], Image.Image]:
        def opened() -> Image.Image:
            try:
                return open_picture(source.read(name), name)
            except ReadFault as fault:
                if faults is not None:
                    faults.append(fault)
                raise

        return opened

    return map(opener, names)


def classes_trained_on(encoder: str | Path | Trained, classes: Iterable[str]) -> list[str]:
    """Those of the classes whose names an encoder's card has among the ones it was trained on.

    An error on examples of these is in-sample: new pictures come out worse.
    """
    trained = zoo.open(encoder).card.trained_classes.values()
    return sorted({str(name) for name in classes} & {name for names in trained for name in names})


def read_pictures(folder: str | Path, channels: int, size: int, most: int) -> tuple[Pictures, list[str], list[str]]:
    """The pictures under a folder or in a zip file, their names, and sentences on what was left aside.

    Raises:
        InputError: if there is no picture that can be read, or more than ``most``.
    """
    source = Source(folder)
    try:
        names, told = find_pictures(source)
        if not 1 <= len(names) <= most:
            raise InputError(f"{folder} holds {len(names):,} pictures; between 1 and {most:,} are looked at.")
        problems: dict[int, str] = {}
        images = collect_each(_opened(source, names), channels, size, problems)
    finally:
        source.close()
    kept = [name for number, name in enumerate(names) if number not in problems]
    return images, kept, told + [f"left out: {problem}" for problem in problems.values()]


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
