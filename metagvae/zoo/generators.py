"""Generators: encoder folders that carry their decoder, so that they draw as well as read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from episodes import InputError
from episodes.untrusted.plain_files import read_json
from metagvae.guidance import GuidanceContext
from metagvae.storage.atomic_files import write_json
from metagvae.storage.tensors import read_tensors, write_tensors
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.inference import INFERENCES, ShortRun
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.load import CONFIG, WEIGHTS, save_encoder

DECODER = "vae.safetensors"
_ENCODER = "encoder."


def save_generator(vae: GuidedVAE, run: Mapping[str, Any], folder: Path, card: EncoderCard, half: bool = False) -> None:
    """Writes an encoder folder with its decoder: ``config.json``, ``model.safetensors`` and ``vae.safetensors``.

    Args:
        run: the config of the run; its sections ``vae``, ``attributes`` and ``factors`` rebuild the VAE, ``data`` says
            what it drew its images from.
        half: weights in float16, half the bytes; they are read back as float32.
    """
    save_encoder(vae.encoder, folder, card)
    kept = {key: run[key] for key in ("kind", "vae", "attributes", "factors") if key in run}
    data = {**run["data"], "root": None}  # a place on the machine that trained it
    write_json(folder / CONFIG, {**read_json(folder / CONFIG, "an encoder's config"), "run": {**kept, "data": data}})
    others = {name: value for name, value in vae.state_dict().items() if not name.startswith(_ENCODER)}
    write_tensors(folder / DECODER, _halved(others) if half else others)
    if half:
        write_tensors(folder / WEIGHTS, _halved(vae.encoder.state_dict()))


def refined_generator(
    run: Mapping[str, Any], card: EncoderCard, refinement: Mapping[str, Any]
) -> tuple[dict[str, Any], EncoderCard]:
    """A run's config and card, its VAE refining the encoder's answer by `ShortRun`; the weights stay as they are.

    Args:
        refinement: options of `ShortRun`, such as ``steps`` and ``step``.

    Raises:
        InputError: if an option is not allowed, or the steps do not begin at the encoder's answer.
    """
    where = "--refinement: "
    cls, options = INFERENCES.chosen({**refinement, "name": ShortRun.name}, where)
    if not cls(GuidanceContext(1, 28, {"content": [0]}), **options).has_density:
        raise InputError(f"{where}its steps begin at the encoder's answer; leave out start, or set it to 'encoder'.")
    said = ", ".join(f"{name} {value}" for name, value in refinement.items())
    inference = {"name": ShortRun.name, **refinement}
    return (
        {**run, "vae": {**run["vae"], "inference": inference}},
        replace(card, method=f"{card.method}; then refined by short-run inference" + (f", {said}" if said else "")),
    )


def read_generator(folder: Path) -> dict[str, Any]:
    """The sections of a run that `save_generator` stored in an encoder folder.

    Raises:
        InputError: if the folder holds an encoder alone.
    """
    content = read_json(folder / CONFIG, "the config of a metagvae encoder")
    run = content.get("run") if isinstance(content, dict) else None
    if not isinstance(run, dict) or not (folder / DECODER).is_file():
        raise InputError(
            f"{folder} holds an encoder without its decoder; give the folder of a finished `metagvae pretrain`, or a "
            "generator: `metagvae export-encoder RUN FOLDER --decoder true` makes one."
        )
    return run


def generator_tensors(folder: Path) -> dict[str, Tensor]:
    """The weights of a whole VAE, from the two files of a generator's folder."""
    encoder = {f"{_ENCODER}{name}": value for name, value in read_tensors(folder / WEIGHTS).items()}
    return {**encoder, **read_tensors(folder / DECODER)}


def _halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
