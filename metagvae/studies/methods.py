"""Methods by name: a head on a frozen encoder, a run's own learner, and what each is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from episodes import ImageBank, InputError
from episodes.paths import expanded
from episodes.untrusted.typed import fits
from metagvae import zoo
from metagvae.classifier.calibration import Calibration
from metagvae.encoders.controls import CONTROLS, make_control
from metagvae.encoders.encoder import Encoder
from metagvae.interop.easyfsl import PREFIX, EasyfslLearner
from metagvae.learners import Learner, PrototypicalNetwork, make_learner
from metagvae.learners.base import weights_on_features
from metagvae.learners.counterfactual_support import CounterfactualSupport
from metagvae.learners.joined import join_learners
from metagvae.runs.metrics_log import read_metrics
from metagvae.studies.protocol import Head
from metagvae.zoo.build import check_pictures
from metagvae.zoo.card import counted
from metagvae.zoo.trained import Trained

HEADS = ("prototypes", "ridge", "soft-k-means")  # learners without weights to be trained first
BY_DISTANCE = ("prototypes", "soft-k-means")  # those that a length of features, `normalise`, is an option of


def encoder_learners(
    parts: Sequence[str | Trained], name: str, bank: ImageBank, train: ImageBank, head: Head
) -> list[Learner]:
    """The learners of ``head`` on an encoder, the inductive ones first.

    Args:
        parts: whose features stand side by side: controls, shipped names, encoder or run folders; most often one.
        name: what they are called together.
        bank: the images to be measured on, which the encoders must take.
        train: the images that a control is fitted on.

    Raises:
        InputError: if there is no such learner for a frozen encoder, or no such option.
    """
    plain = [PrototypicalNetwork(_encoder(part, bank, train, head.features)) for part in parts]
    encoder = join_learners(plain, name, head.votes).encoder
    options = head.head_options or {}
    made = [
        _learner_on(encoder, learner, {**_options_of_card(parts, encoder, learner, options), **options})
        for learner in head.names
    ]
    return sorted(made, key=lambda learner: learner.transductive)


def encoder_learner(name: str | Trained, bank: ImageBank, train: ImageBank, head: Head) -> Learner:
    """The first of `encoder_learners` on one encoder."""
    return encoder_learners([name], str(name), bank, train, head)[0]


def _encoder(name: str | Trained, bank: ImageBank, train: ImageBank, features: list[str] | None) -> nn.Module:
    if isinstance(name, str) and name in CONTROLS:
        return make_control(name, train)
    encoder = zoo.open(name).encoder(features)
    check_pictures(encoder, bank, name)
    return encoder


def _options_of_card(
    parts: Sequence[str | Trained], encoder: nn.Module, learner: str, options: dict[str, Any]
) -> dict[str, Any]:
    """The options of a head that one encoder's card asks for: at which length its features are taken."""
    part = parts[0]
    if len(parts) > 1 or learner not in BY_DISTANCE or "distance" in options or part in CONTROLS:
        return {}
    known = Calibration.read(zoo.open(part).card.details, getattr(encoder, "features", []))
    return {"normalise": known.normalise} if known is not None and known.normalise else {}


def _learner_on(encoder: nn.Module, name: str, options: dict[str, Any]) -> Learner:
    if name.startswith(PREFIX):
        return EasyfslLearner(encoder, name.removeprefix(PREFIX), **options)
    if name not in HEADS:
        raise InputError(
            f"a frozen encoder takes the learner {', '.join(HEADS)}, or a method of easyfsl such as "
            f"{PREFIX}SimpleShot; received {name!r}."
        )
    return make_learner(name, encoder, 0, **options)


def run_learner(run: str | Trained, bank: ImageBank, features: list[str] | None) -> Learner:
    """A run's learner; of a pretraining run, prototypes on its encoder.

    Args:
        features: what its encoder returns instead of what the run chose; None for that.

    Raises:
        InputError: if the encoder has no such features, or the learner weights for its own.
    """
    run = zoo.open(run)
    if run.config["kind"] == "pretrain":
        encoder = run.encoder(features)
        check_pictures(encoder, bank, run)
        return make_learner("prototypes", encoder, 0)
    learner = run.learner()
    assert isinstance(learner.encoder, Encoder)
    check_pictures(learner.encoder, bank, run)
    if features is not None and features != list(learner.encoder.features):
        own = weights_on_features(learner)
        if own:
            raise InputError(
                f"the learner '{learner.name}' of {run.name} has weights ({own}) for its own features; leave out "
                "--features, or name the run as an --encoder under a head."
            )
        learner.encoder.features = features
    return learner


def counterfactual_learner(
    run: str | Trained, bank: ImageBank, do: Mapping[str, int], features: list[str] | None
) -> Learner:
    """Nearest copies of the support images, drawn under other causes by a run's prior.

    Args:
        do: how many numbers each factor is set to.
        features: of the run's encoder, that copies and queries are compared by; None for their pixels.

    Raises:
        InputError: if the run has no VAE, or its prior no such factor.
    """
    run = zoo.open(run)
    vae = run.vae()
    check_pictures(vae.encoder, bank, run)
    return CounterfactualSupport(vae, do, run.encoder(features) if features else None)


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
