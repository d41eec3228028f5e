"""Encoders out and in: a folder with ``config.json`` and ``model.safetensors``. No pickle.

The layout is the one that the Hugging Face Hub's mixin reads and writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from episodes import ImageBank, InputError
from episodes.paths import expanded
from episodes.picture_marks import class_marks
from episodes.torch_defaults import plain_defaults
from episodes.untrusted.plain_files import read_json
from episodes.untrusted.typed import check_types
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.runs.run import classes_by_family
from metagvae.storage.atomic_files import write_json
from metagvae.storage.strict_load import build, load_strictly
from metagvae.storage.tensors import read_tensors, write_tensors
from metagvae.zoo.card import EncoderCard

CONFIG, WEIGHTS = "config.json", "model.safetensors"


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
        {"format": "metagvae-encoder/1", "encoder": asdict(encoder.config), "card": asdict(card or EncoderCard())},
    )


def shipped_encoders() -> dict[str, Path]:
    """Folders of the encoders that come with the package, by name."""
    root = Path(str(files("metagvae") / "weights"))
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{CONFIG}"))}


def find_encoder(name_or_path: str | Path) -> Path:
    """The encoder folder that a shipped name, an encoder folder or a run folder stands for.

    Raises:
        InputError: naming the shipped encoders and what was looked for.
    """
    shipped = shipped_encoders()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    if provider_of(name_or_path) == "hub":
        from metagvae.zoo.hub import download

        return download(str(name_or_path).partition(":")[2])
    path = expanded(name_or_path)
    for folder in (path, path / "encoder"):
        if (folder / CONFIG).is_file():
            return folder
    raise InputError(
        f"no encoder {str(name_or_path)!r}: it is none of the shipped ones ({', '.join(shipped) or 'none'}), and "
        f"neither {path / CONFIG} nor {path / 'encoder' / CONFIG} exists. Give a shipped name, an encoder folder or "
        "the folder of a finished run, or timm:NAME, torchvision:NAME or hub:OWNER/NAME."
    )


def classes_seen(bank: ImageBank, source: str | None = None) -> dict[str, list[str]]:
    """`EncoderCard.trained_classes` of an encoder trained on a bank, starting from the encoder ``source``."""
    seen = dict(read_card(source).trained_classes) if source else {}
    for family, names in classes_by_family(bank.dataset, bank.class_names).items():
        seen[family] = sorted(names | set(seen.get(family, [])))
    return seen


def images_seen(bank: ImageBank, source: str | None = None) -> list[str]:
    """`EncoderCard.trained_images` of an encoder trained on a bank, starting from the encoder ``source``."""
    return class_marks(bank, read_card(source).trained_images if source else ())


def provider_of(name: str | Path) -> str | None:
    """``timm``, ``torchvision`` or ``hub`` of a name that begins with it and a colon."""
    provider, colon, _ = str(name).partition(":")
    return provider if colon and provider in ("timm", "torchvision", "hub") else None


def config_class(raw: Mapping[str, Any]) -> type[EncoderConfig]:
    """The class of an encoder's settings: another package's network has ``PACKAGE:NAME`` for its backbone."""
    if ":" not in str(raw.get("backbone")):
        return EncoderConfig
    from metagvae.encoders.external import ForeignConfig

    return ForeignConfig


def make_encoder(config: EncoderConfig) -> Encoder:
    """An encoder of a config, its weights as initialised."""
    if ":" not in config.backbone:
        return Encoder(config)
    from metagvae.encoders.external import ForeignConfig, ForeignEncoder

    assert isinstance(config, ForeignConfig)
    return ForeignEncoder(config)


def read_card(name_or_path: str | Path) -> EncoderCard:
    """The card of an encoder."""
    if provider_of(name_or_path) in ("timm", "torchvision"):
        from metagvae.zoo.external import foreign_card

        return foreign_card(str(name_or_path))
    if provider_of(name_or_path) == "hub":
        from metagvae.zoo.external import foreign_card
        from metagvae.zoo.hub import timm_architecture

        network = timm_architecture(find_encoder(name_or_path))
        if network is not None:
            return foreign_card(network)
    return _read_config(find_encoder(name_or_path) / CONFIG)[1]


def _read_config(path: Path) -> tuple[EncoderConfig, EncoderCard]:
    content = read_json(path, "the config of a metagvae encoder")
    raw, card = (content.get(key, {}) if isinstance(content, dict) else None for key in ("encoder", "card"))
    if not isinstance(raw, dict) or not isinstance(card, dict) or not raw:
        raise InputError(
            f"{path} is not the config of a metagvae encoder; it should hold a JSON object with an 'encoder' section."
        )
    kind = config_class(raw)
    allowed = {f.name for f in fields(kind)}
    unknown = sorted(set(raw) - allowed)
    if unknown:
        raise InputError(
            f"{path} has the unknown encoder setting {unknown[0][:100]!r}; allowed: {', '.join(sorted(allowed))}."
        )
    config = kind(**raw)
    config.check()
    known = {f.name: card[f.name] for f in fields(EncoderCard) if f.name in card}
    check_types(EncoderCard, known, f"{path}: card.")
    if not isinstance(known.get("details", {}).get("provenance", {}), dict):
        raise InputError(f"{path}: card.details.provenance must be a mapping.")
    return config, EncoderCard(**known)


def load_encoder(name_or_path: str | Path, features: list[str] | None = None) -> Encoder:
    """A pretrained encoder, in evaluation mode, in float32 on the CPU whatever torch's defaults are.

    Args:
        name_or_path: a shipped name such as ``guided-vae-omniglot``, an encoder folder, a run folder,
            ``timm:NAME``, ``torchvision:NAME`` or ``hub:OWNER/NAME``.
        features: what a call returns; None keeps the stored choice. See `Encoder.features`.

    Raises:
        InputError: if there is none, the files are damaged, or the weights do not fit the config.
    """
    with plain_defaults():
        return _load(name_or_path, features)


def _load(name_or_path: str | Path, features: list[str] | None) -> Encoder:
    provider = provider_of(name_or_path)
    if provider in ("timm", "torchvision"):
        from metagvae.encoders.external import load_foreign

        return _with_features(load_foreign(str(name_or_path)), features)
    folder = find_encoder(name_or_path)
    if provider == "hub":
        from metagvae.zoo.hub import load_timm_folder, timm_architecture

        network = timm_architecture(folder)
        if network is not None:
            return _with_features(load_timm_folder(folder, network), features)
    config, _ = _read_config(folder / CONFIG)
    tensors = read_tensors(folder / WEIGHTS)
    where = str(folder / WEIGHTS)
    encoder = build(lambda: make_encoder(config), where, tensors)
    load_strictly(encoder, tensors, where)
    return _with_features(encoder, features)


def _with_features(encoder: Encoder, features: list[str] | None) -> Encoder:
    if features is not None:
        encoder.features = features
    return encoder.eval()
