"""`metagvae probe`: error of a classifier on frozen features."""

from __future__ import annotations

from typing import Any

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.outputs import check_writable, say


def probe(
    data: str = "mnist",
    root: str | None = None,
    size: int | None = None,
    data_options: dict[str, Any] | None = None,
    encoder: list[str] | None = None,
    features: list[str] | None = None,
    classifier: list[str] | None = None,
    device: str = "auto",
    json: str | None = None,
) -> None:
    """Error of a linear or kernel classifier trained on an encoder's frozen features.

    Args:
        data: a data set whose splits hold the same classes, such as mnist.
        root: where its pictures are; leave out to look under METAGVAE_DATA and ./data.
        size: side of the pictures in pixels; leave out for the data set's usual one.
        data_options: further options of that data set.
        encoder: pixels, pca, random, a shipped name, an encoder folder or a run folder; one or more.
        features: what encoders return: latent, backbone, or groups such as content; leave out for each one's own.
        classifier: linear (logistic regression) and kernel (support vector machine); leave out for both.
        device: auto | cpu | cuda.
        json: file to write results to.
    """
    from episodes.datasets import make_dataset
    from metagvae import zoo
    from metagvae.compute.device import Device
    from metagvae.encoders.controls import CONTROLS, make_control
    from metagvae.evaluation.linear_probe import make_classifier, save_probes
    from metagvae.evaluation.linear_probe import probe as measure
    from metagvae.studies.methods import describe
    from metagvae.studies.naming import short_names
    from metagvae.studies.own_images import as_encoders_take
    from metagvae.zoo.build import check_pictures

    check_writable(json, inputs=[root, *(encoder or [])])
    if not encoder:
        raise InputError("probe needs something to measure: --encoder NAME, one or more.")
    kinds = classifier or ["linear", "kernel"]
    for kind in kinds:
        make_classifier(kind, 1.0)
    dataset = make_dataset(data, data_options, root=root, size=size)
    dataset = as_encoders_take(dataset, encoder, "train", size, data_options or {})
    train, test = dataset.load("train"), dataset.load("test")
    modules: dict[str, Any] = {}
    for name in encoder:  # all of them before the first is measured
        modules[name] = make_control(name, train) if name in CONTROLS else zoo.open(name).encoder(features)
        if name not in CONTROLS:
            check_pictures(modules[name], train, name)
    results, short = [], short_names(encoder)
    for name, module in modules.items():
        found = measure(short[name], module, train, test, kinds, Device.choose(device))
        for result in found:
            result.about = describe(name)
            say(
                f"{result.encoder}, {result.features} ({result.size}), {result.classifier}: error "
                f"{100 * result.error:.2f} ± {100 * result.half_width:.2f} % of {result.pictures[1]:,} test pictures"
            )
        results += found
    if json:
        save_probes(results, expanded(json))
