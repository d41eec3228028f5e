"""Weights of another code base, brought in as an encoder folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from episodes import InputError
from episodes.untrusted.plain_files import read_yaml
from episodes.untrusted.torch_files import load_torch
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.storage.strict_load import build, load_strictly
from metagvae.storage.tensors import read_tensors
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.load import save_encoder


def read_weights(path: Path) -> dict[str, Tensor]:
    """A flat state dict from a safetensors or a torch file, by `episodes.untrusted.torch_files`.

    Dicts nested under ``state_dict``, ``model`` or ``encoder`` are looked into.

    Raises:
        InputError: if the file is missing, damaged, holds code, or holds no tensors.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a .safetensors or a torch file.")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    content = load_torch(path)
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        inner = next((content[key] for key in ("state_dict", "model", "encoder") if key in content), None)
        if inner is None:
            names = ", ".join(str(key)[:40] for key in list(content)[:10])
            raise InputError(f"{path} holds no tensors; its keys are {names or 'none'}.")
        content = inner
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not a state dict.")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def read_encoder_config(path: Path) -> EncoderConfig:
    """An encoder's settings from YAML or JSON (an encoder folder's config.json too).

    Raises:
        InputError: if the file is missing or malformed, or a setting is unknown or not allowed.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a YAML or JSON file with the encoder's settings.")
    content = read_yaml(path, "the settings of an encoder")
    if isinstance(content, dict) and isinstance(content.get("encoder"), dict):
        content = content["encoder"]
    allowed = [field.name for field in fields(EncoderConfig)]
    if not isinstance(content, dict) or not set(content) <= set(allowed):
        unknown = sorted(map(str, set(content) - set(allowed))) if isinstance(content, dict) else []
        raise InputError(
            f"{path} must hold encoder settings among {', '.join(allowed)}; received "
            f"{', '.join(unknown)[:200] or type(content).__name__}."
        )
    return EncoderConfig(**content)


def renamed(tensors: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """Names with the longest matching prefix replaced; an empty replacement removes it."""
    ordered = sorted(prefixes, key=len, reverse=True)
    result = {}
    for name, value in tensors.items():
        prefix = next((p for p in ordered if name.startswith(p)), None)
        target = name if prefix is None else prefixes[prefix] + name[len(prefix) :]
        if target in result:
            raise InputError(f"two weights get the name {target!r} by the prefix map; make the prefixes distinct.")
        result[target] = value
    return result


def import_weights(
    weights: Path,
    config: Path,
    out: Path | None,
    prefixes: Mapping[str, str],
    dry_run: bool,
    allow_missing_latent: bool,
) -> str:
    """Imports a state dict as an encoder folder; returns a report of matched, missing and unexpected names.

    Args:
        allow_missing_latent: accept weights without ``to_mean`` and ``to_log_var``; the encoder's features then
            are the backbone's.

    Raises:
        InputError: if a name or shape does not fit and this is no dry run; nothing is written then.
    """
    if not dry_run and out is None:
        raise InputError("import-encoder needs --out FOLDER to write to, or --dry_run true to only look.")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty; choose another folder.")
    settings, given = read_encoder_config(config), renamed(read_weights(weights), prefixes)
    with torch.device("meta"):  # nothing is allocated until the weights are known to fit
        wanted = Encoder(settings).state_dict()
    latent = {name for name in wanted if name.startswith(("to_mean.", "to_log_var."))}
    matched = sorted(n for n in wanted.keys() & given.keys() if wanted[n].shape == given[n].shape)
    shapes = sorted(n for n in wanted.keys() & given.keys() if wanted[n].shape != given[n].shape)
    missing = sorted(wanted.keys() - given.keys())
    # a counter that torch's own BatchNorm keeps and this package does without
    unexpected = sorted(n for n in given.keys() - wanted.keys() if not n.endswith("num_batches_tracked"))
    lines = [f"matched: {len(matched)} of {len(wanted)}"]
    lines += [f"  {name} {list(wanted[name].shape)}" for name in matched]
    lines += [f"of another shape: {len(shapes)}"]
    lines += [f"  {name}: received {list(given[name].shape)}, wanted {list(wanted[name].shape)}" for name in shapes]
    lines += [f"missing: {len(missing)}", *(f"  {name} {list(wanted[name].shape)}" for name in missing)]
    lines += [f"unexpected: {len(unexpected)}", *(f"  {name} {list(given[name].shape)}" for name in unexpected)]
    report = "\n".join(lines)
    if dry_run:
        return report + "\nnothing was written (dry run)"
    left = set(missing) - (latent if allow_missing_latent else set())
    if shapes or unexpected or left:
        raise InputError(
            f"the weights in {weights} do not fit the encoder that {config} describes, so nothing was written:\n"
            f"{report}\nMend the config or --prefix; --dry_run true shows this without writing."
        )
    assert out is not None
    encoder = build(lambda: Encoder(settings), str(config))
    load_strictly(encoder, {**encoder.state_dict(), **{name: given[name] for name in matched}}, str(weights))
    if latent & set(missing):
        encoder.features = ["backbone"]
    save_encoder(encoder, out, EncoderCard(name=out.name, method=f"imported from {weights.name}"))
    return f"{report}\nwrote {out}"
