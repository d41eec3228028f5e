"""Encoders out and in: a folder with ``config.json`` and ``model.safetensors``. No pickle.

The layout is the one that the Hugging Face Hub's mixin reads and writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import Tensor

from episodes import ImageBank, InputError
from episodes.untrusted.plain_files import read_json
from episodes.untrusted.typed import check_types
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.runs.run import family, plain_names
from metagvae.storage.atomic_files import write_beside, write_json
from metagvae.storage.strict_load import build, load_strictly

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_HEADER_BYTES = 2**20


@dataclass
class EncoderCard:
    """What a stranger needs to know of an encoder's weights.

    Args:
        name: of the encoder.
        trained_on: data set and split.
        method: how it was trained.
        licence: of the weights.
        trained_classes: names of all classes seen in training, here or in an encoder this one came from, by
            family of data sets; an evaluation refuses them.
        details: config, command, commit, measured errors.
    """

    name: str = "unnamed"
    trained_on: str = "unknown"
    method: str = "unknown"
    licence: str = "unknown"
    trained_classes: dict[str, list[str]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


def card_text(card: EncoderCard, config: EncoderConfig) -> str:
    """An encoder's card as Markdown, for the ``README.md`` beside its weights."""
    groups = ", ".join(f"{name} {len(units)}" for name, units in config.units.items())
    command = card.details.get("provenance", {}).get("command", "unknown")
    polarity = {"ink": "bright strokes on black", "light": "as photographed"}.get(config.polarity, config.polarity)
    return f"""# {card.name}

- **Trained on:** {card.trained_on}
- **Method:** {card.method}
- **Made by:** `{command}`, commit {card.details.get("provenance", {}).get("commit")}, seed {card.details.get("seed")}
- **Licence:** {card.licence}
- **Input:** pictures [B, {config.channels}, {config.size}, {config.size}] in [0, 1], {polarity}
- **Network:** {config.backbone}, width {config.width}, norm {config.norm}; latent units: {groups}
- **A call returns:** {" + ".join(config.features)}

```python
import metagvae

encoder = metagvae.load_encoder("{card.name}")
```
"""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises `InputError` if it is missing or malformed."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > MAX_HEADER_BYTES:  # the library itself parses a hundred times as much
            raise InputError(
                f"{path} is not a readable safetensors file: its header claims {header:,} bytes, and at most "
                f"{MAX_HEADER_BYTES:,} are read."
            )
        return load_file(path)
    except InputError:
        raise
    except Exception as error:  # the library raises its own kind, and torch's for what torch cannot hold
        raise InputError(
            f"{path} is not a readable safetensors file ({str(error)[:200]}); it may be cut short."
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file beside and renames it over."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_beside(path, save(plain))


def save_encoder(encoder: Encoder, folder: str | Path, card: EncoderCard | None = None) -> None:
    """Writes ``config.json`` and ``model.safetensors`` into ``folder``, made if missing.

    Raises:
        InputError: if the folder cannot be written.
    """
    folder = Path(folder).expanduser()
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
    path = Path(name_or_path).expanduser()
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
    known = seen.get(family(bank.dataset), [])
    seen[family(bank.dataset)] = sorted(plain_names(bank.class_names) | set(known))
    return seen


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
        from metagvae.encoders.external import foreign_card

        return foreign_card(str(name_or_path))
    if provider_of(name_or_path) == "hub":
        from metagvae.encoders.external import foreign_card
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
    """A pretrained encoder, in evaluation mode, on the CPU.

    Args:
        name_or_path: a shipped name such as ``guided-vae-omniglot``, an encoder folder, a run folder,
            ``timm:NAME``, ``torchvision:NAME`` or ``hub:OWNER/NAME``.
        features: what a call returns; None keeps the stored choice. See `Encoder.features`.

    Raises:
        InputError: if there is none, the files are damaged, or the weights do not fit the config.
    """
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
