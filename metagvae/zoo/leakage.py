"""Refusal to measure on classes that were trained on."""

from __future__ import annotations

from episodes import ImageBank, InputError
from episodes.picture_marks import classes_with
from metagvae.config.sections import TrainConfig
from metagvae.encoders.controls import CONTROLS
from metagvae.runs.class_families import classes_by_family
from metagvae.zoo.trained import Trained
from metagvae.zoo.trained import open as open_trained

ELSEWHERE = "Measure with the run's own data options, or on another data set."


def refuse_trained_classes(
    source: str | Trained, bank: ImageBank, advice: str = ELSEWHERE, train_split: bool = True
) -> None:
    """Raises `InputError` if classes to be measured on are among those that the run ``source`` was trained on.

    Args:
        advice: what to do instead, the end of the message.
        train_split: let a train split pass, whatever was trained on it: who measures on one means it.
    """
    if (train_split and bank.split == "train") or (isinstance(source, str) and source in CONTROLS):
        return
    card, asked = open_trained(source).card, classes_by_family(bank.dataset, bank.class_names)
    shared = {name for kin, names in asked.items() for name in names & set(card.trained_classes.get(kin, []))}
    again = classes_with(bank, set(card.trained_images))  # under another name
    shared |= {name for names in classes_by_family(bank.dataset, again).values() for name in names}
    if shared:
        raise InputError(
            f"{len(shared)} of the {sum(map(len, asked.values()))} classes of the {bank.split} split were trained "
            f"on by {source}, {sorted(shared)[0]!r} among them, so its error on them would mean nothing. {advice}"
        )


def refuse_trained_images(source: str | Trained, bank: ImageBank, advice: str = ELSEWHERE) -> None:
    """Raises `InputError` if images to be measured on are among those that the run ``source`` was trained on.

    For what looks at no label: other images of a class that was trained on may be measured on. The card marks some
    images of each class (`episodes.picture_marks`), so a bank that shares but few images with a training may pass.

    Args:
        advice: what to do instead, the end of the message.
    """
    if bank.split == "train":
        return
    known = classes_with(bank, set(open_trained(source).card.trained_images))
    if known:
        raise InputError(
            f"{source} was trained on images of {len(known)} of the {bank.num_classes} classes of the {bank.split} "
            f"split, {sorted(known)[0]!r} among them, so what is measured on them would mean nothing. {advice}"
        )


def refuse_trained_sources(config: TrainConfig, bank: ImageBank, advice: str = ELSEWHERE) -> None:
    """Raises `InputError` if a training starts from, or is taught by, what knows classes that it is measured on.

    Args:
        advice: what to do instead, the end of the message.
    """
    taught_by = config.teacher.sources if config.teacher else []
    for source in [*([config.encoder.source] if config.encoder.source else []), *taught_by]:
        refuse_trained_classes(source, bank, advice)
