"""`metagvae import-encoder`: weights of another code base."""

from __future__ import annotations

from episodes.paths import expanded
from metagvae.cli.outputs import say


def import_encoder(
    weights: str,
    config: str,
    out: str | None = None,
    prefix: dict[str, str] | None = None,
    dry_run: bool = False,
    allow_missing_latent: bool = False,
    key: str | None = None,
    drop: list[str] | None = None,
) -> None:
    """Bring a foreign state dict in as an encoder folder.

    Args:
        weights: a file of safetensors or of torch, told apart by content, read without running anything in it.
        config: YAML or JSON file with the encoder's settings, such as {width: 64, channels: 1, size: 28}.
        out: the encoder folder to write; not needed with --dry_run.
        prefix: prefixes to replace in names, such as {"module.": "", "features.": "backbone.blocks."}.
        dry_run: only report matched, missing and unexpected names.
        allow_missing_latent: accept weights without a latent layer (a plain backbone); it is left as initialised
            and the encoder's features become the backbone's.
        key: which state dict of a checkpoint is meant, such as model_ema or model.encoder; not needed where only one
            fits the settings. The report names the others.
        drop: patterns of names to leave out, such as fc.* decoder.*, before or after their prefix is replaced.
    """
    from metagvae.zoo.convert import import_weights

    say(
        import_weights(
            expanded(weights),
            expanded(config),
            expanded(out) if out else None,
            prefix or {},
            dry_run,
            allow_missing_latent,
            key,
            drop or (),
        )
    )
