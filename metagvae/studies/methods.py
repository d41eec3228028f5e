"""Methods by name: a head on a frozen encoder, a run's own learner, and what each is."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from torch import nn

from episodes import ImageBank, InputError
from episodes.paths import expanded
from episodes.untrusted.typed import fits
from metagvae import zoo
from metagvae.encoders.controls import CONTROLS, make_control
from metagvae.encoders.encoder import Encoder
from metagvae.learners import Learner, make_learner
from metagvae.runs.metrics_log import read_metrics
from metagvae.studies.protocol import Head
from metagvae.zoo.build import check_pictures
from metagvae.zoo.card import counted
from metagvae.zoo.trained import Trained


def encoder_learner(name: str | Trained, bank: ImageBank, train: ImageBank, head: Head) -> Learner:
    """A head on an encoder by name: a control, a shipped name, an encoder or run folder.

    Args:
        bank: the images to be measured on, which the encoder must take.
        train: the images that a control is fitted on.
    """
    encoder: nn.Module
    if isinstance(name, str) and name in CONTROLS:
        encoder = make_control(name, train)
    else:
        encoder = zoo.open(name).encoder(head.features)
        check_pictures(encoder, bank, name)
    if head.head not in ("prototypes", "ridge"):
        raise InputError(f"a frozen encoder takes the head 'prototypes' or 'ridge'; received {head.head!r}.")
    return make_learner(head.head, encoder, 0, **(head.head_options or {}))


def run_learner(run: str | Trained, bank: ImageBank, features: list[str] | None) -> Learner:
    """A run's learner; of a pretraining run, prototypes on its encoder."""
    run = zoo.open(run)
    if run.config["kind"] == "pretrain":
        encoder = run.encoder(features)
        check_pictures(encoder, bank, run)
        return make_learner("prototypes", encoder, 0)
    learner = run.learner()
    assert isinstance(learner.encoder, Encoder)
    check_pictures(learner.encoder, bank, run)
    return learner


def describe(source: str | Trained, joined: int = 1) -> dict[str, Any]:
    """An encoder's or run's card, and the seconds its training took, where known.

    Args:
        joined: how many of its kind are joined to one method.
    """
    if isinstance(source, str) and source in CONTROLS:
        return {"method": CONTROLS[source].method}
    source = zoo.open(source)
    about = asdict(source.card)
    del about["trained_images"]
    # the names stay in the encoder's card, once; a result says how many and which by their hash
    about["trained_classes"] = {family: counted(names) for family, names in source.card.trained_classes.items()}
    if joined > 1:
        about["method"] = f"{joined} joined, each: {about['method']}"
    lines = read_metrics(expanded(source.name))
    seconds = [line["seconds"] for line in lines if fits(line.get("seconds"), float) and line["seconds"] < math.inf]
    if seconds:
        about["training_seconds"] = round(seconds[-1])
    return about
