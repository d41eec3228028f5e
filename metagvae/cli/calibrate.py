"""`metagvae calibrate`: an encoder's temperature, spread and scores of sets, into its card."""

from __future__ import annotations

from typing import Any

from episodes.errors import InputError
from metagvae.cli.outputs import check_folder_of, say


def calibrate(
    source: str,
    data: str,
    root: str | None = None,
    split: str = "validation",
    rotations: str = "none",
    data_options: dict[str, Any] | None = None,
    features: list[str] | None = None,
) -> None:
    """Fit an encoder's probabilities on classes it was not trained on, and keep the result in its card.

    Args:
        source: an encoder folder, a run folder or a shipped name; its config.json is written anew.
        data: the data set to fit on.
        root: where its pictures are.
        split: validation | test | train; refused if the encoder was trained on its classes.
        rotations: none | classes.
        data_options: further options of that data set.
        features: what the encoder returns; leave out for its own choice. Each choice has its own calibration.
    """

    from episodes.datasets import make_dataset
    from episodes.paths import expanded
    from episodes.untrusted.plain_files import read_json
    from metagvae import zoo
    from metagvae.classifier.calibration import calibrate
    from metagvae.classifier.conformal import embedded_sets
    from metagvae.storage.atomic_files import check_links, write_json
    from metagvae.studies.own_images import as_encoders_take
    from metagvae.zoo.build import check_pictures
    from metagvae.zoo.leakage import refuse_trained_classes
    from metagvae.zoo.load import CONFIG

    if rotations == "episode":
        raise InputError("calibrate takes every image as it is; choose --rotations none or classes, not episode.")
    if expanded(source).is_dir():
        check_links(expanded(source))  # its config is written anew
    trained = zoo.open(source)
    folder, encoder = trained.folder, trained.encoder(features)
    check_folder_of(folder / CONFIG)
    size = None if encoder.takes_any_size else encoder.config.size
    dataset = make_dataset(data, data_options, root=root, size=size, rotations=rotations)
    bank = as_encoders_take(dataset, [source], split, size, data_options or {}).load(split)
    check_pictures(encoder, bank, source)
    elsewhere = "Fit on the validation split, or on another data set."
    refuse_trained_classes(trained, bank, elsewhere, train_split=False)
    fitted = calibrate(encoder, bank)
    sets = embedded_sets(encoder, bank, fitted)
    content = read_json(folder / CONFIG, "an encoder's config")
    details = content.setdefault("card", {}).setdefault("details", {})
    details.setdefault("calibration", {})["+".join(encoder.features)] = fitted.to_dict()
    details.setdefault("sets", {})["+".join(encoder.features)] = sets.to_dict()
    write_json(folder / CONFIG, content)
    say(f"{source}, {' + '.join(encoder.features)}: {fitted}")
