"""Weights of another code base, brought in as an encoder folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import torch

from episodes import InputError
from episodes.untrusted.plain_files import read_yaml
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.storage.atomic_files import check_empty
from metagvae.storage.strict_load import build, load_strictly
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.fitting import Fit, advice, choose, shapes
from metagvae.zoo.load import save_encoder
from metagvae.zoo.state_dicts import listed, read_state_dicts, renamed, without


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


def import_weights(
    weights: Path,
    config: Path,
    out: Path | None,
    prefixes: Mapping[str, str],
    dry_run: bool,
    allow_missing_latent: bool,
    key: str | None = None,
    drop: Sequence[str] = (),
) -> str:
    """Imports a state dict as an encoder folder; returns a report of matched, missing and unexpected names.

    Args:
        prefixes: see `metagvae.zoo.state_dicts.renamed`.
        allow_missing_latent: accept weights without ``to_mean`` and ``to_log_var``; the encoder's features then
            are the backbone's.
        key: which state dict of the file is meant, such as ``model_ema``; None takes the only one that fits.
        drop: patterns of names that are left out, see `metagvae.zoo.state_dicts.without`.

    Raises:
        InputError: if a name or shape does not fit and this is no dry run, weights are integers or not finite in
            float32, or several state dicts could be meant; nothing is written then.
    """
    if not dry_run and out is None:
        raise InputError("import-encoder needs --out FOLDER to write to, or --dry_run true to only look.")
    if out is not None:
        check_empty(out)
    settings, found = read_encoder_config(config), read_state_dicts(weights)
    with torch.device("meta"):  # nothing is allocated until the weights are known to fit
        needed = shapes(Encoder(settings).state_dict())
    chosen = choose(found, needed, key, str(weights))
    kept = without(found[chosen], prefixes, drop)
    given = renamed(kept, prefixes)
    fit = Fit(shapes(given), needed)
    report = "\n".join([*_about(found, chosen, kept), fit.report()])
    if not fit.fits(allow_missing_latent):
        problem = f"{report}\n{advice(shapes(found[chosen]), needed)}"
        if dry_run:
            return f"{problem}\nnothing was written (dry run)"
        raise InputError(
            f"the weights in {weights} do not fit the encoder that {config} describes, so nothing was written:\n"
            f"{problem}"
        )
    wrong = [f"{name} ({given[name].dtype})" for name in fit.matched if not given[name].is_floating_point()]
    if wrong:
        raise InputError(
            f"the weights in {weights} are no floating point numbers, as an encoder's are: {listed(wrong, 3)}. Give "
            "those that the network had before they were quantised or converted."
        )
    if dry_run:
        return f"{report}\nnothing was written (dry run)"
    assert out is not None
    encoder = build(lambda: Encoder(settings), str(config))
    new = {name: given[name] for name in fit.matched}
    load_strictly(encoder, {**encoder.state_dict(), **new}, str(weights))
    if fit.missing:
        encoder.features = ["backbone"]
    method = f"imported from {weights.name}{f', {chosen}' if chosen else ''}"
    save_encoder(encoder, out, EncoderCard(name=out.name, method=method))
    return f"{report}\nwrote {out}"


def _about(found: Mapping[str, Mapping[str, object]], chosen: str, kept: Mapping[str, object]) -> list[str]:
    """Which state dict is meant and what is left aside, where there is a choice."""
    others = [name or "the top level" for name in found if name != chosen]
    dropped = [name for name in found[chosen] if name not in kept]
    lines = [f"state dict: {chosen}"] if chosen else []
    lines += [f"left aside: {listed(others)} (--key takes another)"] if others else []
    return lines + ([f"dropped: {len(dropped)} ({listed(dropped)})"] if dropped else [])
